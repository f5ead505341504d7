"""What Lua's cmsgpack wrote, read back: strings stay bytes, for Lua knows no other."""

from collections.abc import Iterator
from typing import Any, cast

import msgpack

_msgpack: Any = cast("Any", msgpack)


def read(data: bytes) -> list[Any]:
    """One array."""
    found: list[Any] = _msgpack.unpackb(data, raw=True)
    return found


def read_all(data: bytes) -> Iterator[Any]:
    """Values packed by `serde`, without extension types, one after another."""
    unpacker: Any = _msgpack.Unpacker()
    unpacker.feed(data)
    yield from unpacker
