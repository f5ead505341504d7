"""Equality conjuncts: how a store finds the waits an event may match without evaluating each."""

import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from stepwell_engine.expressions.nodes import Binary, Literal, Logic, Node, path_of
from stepwell_engine.expressions.values import PLAIN, FaultError, is_list, is_map, plain

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


@dataclass(frozen=True, slots=True)
class Equality:
    """`async.<async_path> == event.<event_path>`, or `== literal` where event_path is None."""

    async_path: str
    event_path: str | None = None
    literal: object = None


def equalities(root: Node) -> tuple[tuple[Equality, ...], bool]:
    """The equality conjuncts at the top of an expression, and whether it says anything more."""
    terms = root.terms if isinstance(root, Logic) and root.is_and else (root,)
    found = [equality for term in terms if (equality := _equality(term)) is not None]
    return tuple(found), len(found) < len(terms)


def _equality(term: Node) -> Equality | None:
    if not isinstance(term, Binary) or term.op != "==":
        return None
    for candidate, other in ((term.left, term.right), (term.right, term.left)):
        async_path = _dotted(candidate, "async")
        if async_path is None:
            continue
        if isinstance(other, Literal):
            return None if other.value is None else Equality(async_path, None, other.value)
        event_path = _dotted(other, "event")
        if event_path is not None:
            return Equality(async_path, event_path)
    return None


def _dotted(node: Node, root: str) -> str | None:
    path = path_of(node)
    # A key with a dot in it has no place in a dotted path: such a conjunct is left to evaluation.
    if (
        path is None
        or path[0] != root
        or not path[1]
        or any("." in key or not key for key in path[1])
    ):
        return None
    return ".".join(path[1])


def lookup(path: str, event: Mapping[str, Any]) -> Any:
    """The value at a dotted path of an event as expressions see it; None when any part is missing.

    Example: `lookup("data.id", {"data": {"id": 7}})` gives 7.
    """
    value: Any = event
    for key in path.split("."):
        if type(value) not in PLAIN:
            value = plain(value)
        if not is_map(value):
            return None
        value = value.get(key)
    return value if type(value) in PLAIN else plain(value)


def index_key(value: object) -> bytes | None:
    """A 16-character key (96 bits of BLAKE2) of a value; equal values (by `==`) have equal keys.

    150 and 150.0 share a key, true and 1 don't. None for what equals nothing: null and NaN.
    """
    encoded = canonical(value)
    return None if encoded is None else short_hash(encoded)


def canonical(value: object) -> bytes | None:
    """A value as bytes, the same for equal values. None for what equals nothing: null and NaN. Raises FaultError."""
    if type(value) is str:  # what nearly every key is
        return _text(value)
    if type(value) is int:
        return b"n%d;" % value
    if value is None:
        return None
    encoded = bytearray()
    try:
        _encode(value, encoded)
    except _UnequalError:
        return None
    return bytes(encoded)


def short_hash(encoded: bytes) -> bytes:
    """16 characters, 96 bits of BLAKE2, in the alphabet of URLs."""
    digest = hashlib.blake2b(encoded, digest_size=12).digest()
    return binascii.b2a_base64(digest, newline=False).translate(_URL_SAFE)


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"s%d:" % len(raw) + raw


class _UnequalError(Exception):
    """A NaN somewhere within: the value equals nothing, not even itself."""


def _encode(value: object, out: bytearray) -> None:
    value = plain(value)
    if isinstance(value, str):
        out += _text(value)
    elif value is True or value is False:
        out += b"t" if value else b"f"
    elif isinstance(value, int | float):
        out += _number(value)
    elif is_list(value):
        out += b"[%d:" % len(value)
        for item in value:
            _encode(item, out)
    elif is_map(value):
        out += b"{%d:" % len(value)
        for key in sorted(value):
            _encode(key, out)
            _encode(value[key], out)
    elif value is None:
        out += b"0"
    else:
        raise FaultError(f"a {type(value).__name__} has no key")


def _number(value: float) -> bytes:
    if value != value:
        raise _UnequalError
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"n{value!r};".encode()
