"""Values as bytes: msgpack, with extension types for what JSON lacks.

What can't be stored exactly is refused with the path to it; what is stored comes back equal.
"""

import math
import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import msgpack

from stepwell.errors import UnserializableError

DATETIME: Final = 1
DATE: Final = 2
DECIMAL: Final = 3
UUID_: Final = 4
SET: Final = 5

_MAX_DEPTH: Final = 500  # msgpack's own is 511
_FLAT: Final = frozenset({str, int, bool, type(None), float, bytes})
_INT64: Final = range(-(1 << 63), 1 << 64)
# A float is 0xcb and eight bytes; only NaN and the infinities have an exponent of all ones. One
# search of the packed bytes costs less than a look at every float; a chance likeness costs a walk.
# msgpack's own signatures are unknown to pyright.
_Packer = cast("Callable[..., Any]", cast("Any", msgpack).Packer)
_unpackb = cast("Callable[..., Any]", cast("Any", msgpack).unpackb)
_Unpacker = cast("Callable[..., Any]", cast("Any", msgpack).Unpacker)
_NOT_FINITE: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]").search


def pack(value: object, *, where: str = "value") -> bytes:
    """`value` as bytes that `unpack` turns into an equal value (tuples become lists).

    Raises `UnserializableError` naming the path under `where`, such as `output.items[3].price`.

    >>> unpack(pack({"at": date(2030, 1, 31)}))
    {'at': datetime.date(2030, 1, 31)}
    """
    try:
        packed = _pack(value)
        _check_keys(value)
    except (TypeError, ValueError, OverflowError, RecursionError, BufferError) as error:
        _walk(value, where, 0)
        raise UnserializableError(where, str(error)) from error
    if _NOT_FINITE(packed):
        _walk(value, where, 0)
    return packed


def unpack(data: bytes) -> Any:
    """The value in `data`. Raises `ValueError` when the bytes are not a packed value."""
    return _unpackb(data, ext_hook=_from_ext)


def _pack(value: object) -> bytes:
    # One packer a call: a shared one is not re-entrant, and threads and sets do re-enter.
    packed: bytes = _Packer(default=_to_ext, strict_types=True, buf_size=512).pack(value)
    return packed


def _check_keys(value: object) -> None:
    """Raise TypeError at a key that isn't a string, or at one of msgpack's own types.

    The packer lets both through. Leaves are passed over at C speed.
    """
    kind = type(value)
    if kind is dict or isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        "".join(mapping)
        members: Iterable[object] = mapping.values()
    elif kind is list or isinstance(value, (list, tuple)):
        if isinstance(value, msgpack.ExtType):
            raise TypeError("an ExtType")
        members = cast("list[object]", value)
    elif isinstance(value, msgpack.Timestamp):
        raise TypeError("a Timestamp")
    else:
        return
    if not _FLAT.issuperset(map(type, members)):
        for member in members:
            if type(member) not in _FLAT:
                _check_keys(member)


def _to_ext(value: object) -> object:
    """What msgpack can't pack by itself, as something that it can."""
    if isinstance(value, (list, tuple)):
        return list(cast("list[object]", value))
    if isinstance(value, dict):
        return dict(cast("dict[str, object]", value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return value[:]
    if isinstance(value, int):
        if type(value) is not int:
            return int(value)
        raise OverflowError("an int beyond 64 bits")
    if isinstance(value, float):
        return float(value)
    return _extension(value)


def _extension(value: object) -> object:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("a naive datetime")
        return msgpack.ExtType(DATETIME, value.isoformat().encode())
    if isinstance(value, date):
        return msgpack.ExtType(DATE, value.isoformat().encode())
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("a Decimal that is not finite")
        return msgpack.ExtType(DECIMAL, str(value).encode())
    if isinstance(value, UUID):
        return msgpack.ExtType(UUID_, value.bytes)
    if isinstance(value, (set, frozenset)):
        members = sorted(map(_pack, cast("set[object]", value)))  # equal sets, equal bytes
        return msgpack.ExtType(SET, b"".join(members))
    raise TypeError(f"a {type(value).__name__}")


def _from_ext(code: int, data: bytes) -> object:
    if code == DATETIME:
        return datetime.fromisoformat(data.decode())
    if code == DATE:
        return date.fromisoformat(data.decode())
    if code == DECIMAL:
        return Decimal(data.decode())
    if code == UUID_:
        return UUID(bytes=data)
    if code == SET:
        members = _Unpacker(ext_hook=_from_ext, use_list=False)
        members.feed(data)
        # A set inside a set must be hashable again.
        return {_hashable(member) for member in members}
    raise ValueError(f"unknown extension type {code}: written by a newer Stepwell?")


def _hashable(member: object) -> object:
    if isinstance(member, set):
        return frozenset(cast("set[object]", member))
    if isinstance(member, tuple):
        return tuple(map(_hashable, cast("tuple[object, ...]", member)))
    return member


def _walk(value: object, path: str, depth: int) -> None:
    """Raise `UnserializableError` at the first thing in `value` that can't be stored."""
    if depth > _MAX_DEPTH:
        raise UnserializableError(_shorten(path), f"nested deeper than {_MAX_DEPTH}, or in itself")
    if isinstance(value, dict):
        for key, member in cast("dict[object, object]", value).items():
            if not isinstance(key, str):
                kind = type(key).__name__
                raise UnserializableError(
                    _shorten(path), f"the key {key!r} is a {kind}; write {str(key)!r}"
                )
            _utf8(key, path)
            _walk(member, f"{path}.{key}" if key.isidentifier() else f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, (list, tuple)) and not isinstance(value, msgpack.ExtType):
        for index, member in enumerate(cast("list[object]", value)):
            _walk(member, f"{path}[{index}]", depth + 1)
    elif isinstance(value, (set, frozenset)):
        for member in cast("set[object]", value):
            _walk(member, f"{path}{{{member!r}}}", depth + 1)
    else:
        reason = _fault(value, path)
        if reason:
            raise UnserializableError(_shorten(path), reason)


def _shorten(path: str) -> str:
    return path if len(path) <= 300 else f"{path[:140]} ... {path[-140:]}"


def _utf8(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnserializableError(
            _shorten(path), f"{text[:40]!r} holds half a surrogate pair, which is not Unicode text"
        ) from None


def _fault(value: object, path: str) -> str:
    """Why the leaf `value` can't be stored; empty when it can."""
    if isinstance(value, str):
        _utf8(value, path)
        return ""
    if isinstance(value, int):
        return "" if value in _INT64 else f"{value!r} is beyond 64 bits; store it as a string"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value!r} is not a finite number; use None"
    if isinstance(value, datetime) and value.utcoffset() is None:
        return f"{value!r} has no time zone; write datetime.now(UTC) or .replace(tzinfo=...)"
    if isinstance(value, Decimal) and not value.is_finite():
        return f"{value!r} is not a finite number; use None"
    if value is None or isinstance(value, (bytes, bytearray, memoryview, date, Decimal, UUID)):
        return ""
    kind = type(value).__name__
    return (
        f"{_a(kind)} can't be stored; return JSON types, datetime, date, bytes, Decimal, UUID or "
        "set, or give the Pydantic model or dataclass as output_type= or return annotation"
    )


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def to_json(value: Any) -> Any:
    """`value` with the extension types as JSON shows them: ISO strings, base64, strings, lists.

    >>> to_json({"on": date(2030, 1, 31), "raw": b"hi"})
    {'on': '2030-01-31', 'raw': 'aGk='}
    """
    if isinstance(value, dict):
        return {key: to_json(member) for key, member in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [to_json(member) for member in cast("list[Any]", value)]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(cast("bytes", value)).decode()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        members = [to_json(member) for member in cast("set[Any]", value)]
        return sorted(members, key=lambda m: (type(m).__name__, str(m)))
    return value
