"""What Lua's cmsgpack writes and reads: strings are bytes, for Lua knows no other."""

from collections.abc import Iterator
from typing import Any, Final, cast

import msgpack

from stepwell_engine.packer import Packer

_msgpack: Any = cast("Any", msgpack)


# cmsgpack knows no type for bytes.
_packer: Final = Packer(use_bin_type=False)


def write(value: object) -> bytes:
    """A value for Lua to read."""
    return _packer.pack(value)


def read(data: bytes) -> list[Any]:
    """One array."""
    found: list[Any] = _msgpack.unpackb(data, raw=True)
    return found


def read_all(data: bytes) -> Iterator[Any]:
    """Values packed by `serde`, without extension types, one after another."""
    unpacker: Any = _msgpack.Unpacker()
    unpacker.feed(data)
    yield from unpacker
