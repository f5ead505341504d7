"""Typed results: dataclasses, enums and Pydantic models, by `output_type` or the return annotation.

Pydantic is imported at the first typed value, not before.
"""

import dataclasses
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from enum import Enum
from functools import lru_cache, partial
from typing import Any, Final, Protocol, cast, get_args, get_origin, get_type_hints

from stepwell.errors import OutputUnserializableError, UnserializableError
from stepwell.runtime import UNSET
from stepwell.serde.values import pack


class Serializer(Protocol):
    """Turns typed values into plain ones and back. Set one on the client to replace Pydantic."""

    def serialize(self, obj: object, typ: object) -> object:
        """`obj`, declared as `typ`, as a value that can be stored."""
        ...

    def deserialize(self, obj: object, typ: object) -> object:
        """The stored value `obj` as a `typ`."""
        ...


class PydanticSerializer:
    """Converts by Pydantic's rules, in its JSON mode.

    >>> PydanticSerializer().deserialize("2030-01-31", date)
    datetime.date(2030, 1, 31)
    """

    __slots__ = ()

    def serialize(self, obj: object, typ: object) -> object:
        """`obj` as plain values. Raises Pydantic's errors."""
        adapter = _adapter(typ)
        try:
            return adapter.dump_python(obj, mode="json", round_trip=True, warnings=False)
        except ValueError:
            # JSON mode can't hold bytes that are not UTF-8; stored values can.
            plain = adapter.dump_python(obj, mode="python", round_trip=True, warnings=False)
            return _but_bytes(plain)

    def deserialize(self, obj: object, typ: object) -> object:
        """The `typ` in plain values. Raises Pydantic's `ValidationError`."""
        # Values are dumped under field names; aliases are accepted for records made by other means.
        return _adapter(typ).validate_python(obj, strict=False, by_alias=True, by_name=True)


def _but_bytes(value: Any) -> Any:
    """`value` in JSON mode, its bytes as they are."""
    from pydantic_core import to_jsonable_python

    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        members = cast("dict[object, object]", value).items()
        return {to_jsonable_python(key): _but_bytes(member) for key, member in members}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_but_bytes(member) for member in cast("list[Any]", value)]
    return to_jsonable_python(value)


@lru_cache(maxsize=1024)
def _adapter(typ: Any) -> Any:
    from pydantic import TypeAdapter  # costs more than the rest of the package

    return TypeAdapter[Any](typ)


_PYDANTIC: Final = PydanticSerializer()


@dataclasses.dataclass(frozen=True, slots=True)
class Codec:
    """How the result of one handler is stored: `dump` to plain values, `load` back."""

    typ: Any
    serializer: Serializer

    def dump(self, value: object) -> object:
        """Plain values. Raises `UnserializableError` when `value` is not of the declared type."""
        try:
            return self.serializer.serialize(value, self.typ)
        except Exception as error:
            raise UnserializableError("output", _misfit(value, self.typ, error)) from error

    def load(self, plain: object) -> Any:
        """The typed value. Raises `UnserializableError` when `plain` does not fit the type."""
        try:
            return self.serializer.deserialize(plain, self.typ)
        except Exception as error:
            raise UnserializableError("output", _misfit(plain, self.typ, error)) from error


def _misfit(value: object, typ: Any, error: Exception) -> str:
    name = getattr(typ, "__name__", None) or str(typ)
    return f"a {type(value).__name__} does not fit the declared type {name}: {error}"


def codec_for(
    handler: Callable[..., Any] | None, output_type: Any, serializer: Serializer | None = None
) -> Codec | None:
    """The codec of a handler's result, None when it is stored as it is.

    `output_type` counts when it is given (neither None nor UNSET); else the handler's return
    annotation does, if it names a dataclass, an enum or a Pydantic model.
    """
    if output_type is None or output_type is UNSET:
        output_type = declared_type(handler)
        if output_type is UNSET:
            return None
    return _codec(output_type, serializer or _PYDANTIC)


def _codec(typ: Any, serializer: Serializer) -> Codec:
    return Codec(typ, serializer)


def declared_type(handler: Callable[..., Any] | None) -> Any:
    """The return annotation that needs a codec; UNSET when there is none or plain values do."""
    while isinstance(handler, partial):
        handler = handler.func
    if handler is None:
        return UNSET
    handler = getattr(handler, "__func__", handler)
    annotations: dict[str, Any] | None = getattr(handler, "__annotations__", None)
    hint = annotations.get("return") if annotations else None
    if hint is None:
        return UNSET
    return _resolved(handler, hint) if isinstance(hint, str) else _typed(hint)


# By place in the source: a closure, made anew at each entry, is resolved once.
_by_place: dict[tuple[object, ...], Any] = {}


def _resolved(handler: Any, text: str) -> Any:
    code = getattr(handler, "__code__", None)
    line = getattr(code, "co_firstlineno", None)
    place = (handler.__module__, handler.__qualname__, line, text)
    if place not in _by_place:
        try:
            hint = get_type_hints(handler, include_extras=True).get("return")
        except Exception:  # noqa: BLE001  a name that only type checkers see, or a local one
            hint = None
        _by_place[place] = UNSET if hint is None else _typed(hint)
    return _by_place[place]


def _typed(hint: Any) -> Any:
    try:
        return _cached_typed(hint)
    except TypeError:  # unhashable, such as Annotated[..., []]
        return _find_typed(hint)


def _find_typed(hint: Any) -> Any:
    while get_origin(hint) in (Awaitable, Coroutine, AsyncGenerator):
        hint = get_args(hint)[-1]
    return hint if _needs_codec(hint) else UNSET


_cached_typed = lru_cache(maxsize=4096)(_find_typed)


def _needs_codec(hint: Any) -> bool:
    if inspect.isclass(hint) and get_origin(hint) is None:
        return (
            dataclasses.is_dataclass(hint)
            or issubclass(hint, Enum)
            or hasattr(hint, "__pydantic_validator__")
        )
    value: Any = getattr(hint, "__value__", None)  # type X = ...
    if value is not None:
        return _needs_codec(value)
    return any(_needs_codec(arg) for arg in (get_origin(hint), *get_args(hint)) if arg is not None)


def pack_output(value: object, step_id: str | None) -> bytes:
    """What a step (None: the function) returned, as bytes. Raises `OutputUnserializableError`."""
    try:
        return pack(value, where="output")
    except UnserializableError as error:
        raise OutputUnserializableError(error.path, error.reason, step_id) from error
