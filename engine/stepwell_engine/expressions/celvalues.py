"""Our rules on cel-python's types: conversions and operators of the evaluator of record.

Written apart from the closures' on purpose, so that a property test can hold the two together.
"""

# celpy's containers and lark's trees are generics that no checker narrows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeArgument=false, reportUnknownLambdaType=false

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

from celpy import celtypes
from celpy.evaluation import base_functions

from stepwell_engine.expressions.operators import INT_MAX, ORDERINGS
from stepwell_engine.expressions.values import FaultError, deep_plain, text_of

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NUMBERS: Final = (celtypes.IntType, celtypes.UintType, celtypes.DoubleType)
ORDERED: Final = (
    celtypes.StringType,
    celtypes.BoolType,
    celtypes.BytesType,
    celtypes.TimestampType,
    celtypes.DurationType,
)


def to_cel(value: Any) -> Any:
    """A plain value (or a timestamp a function made) as cel-python's types."""
    match value:
        case bool():
            return celtypes.BoolType(value)
        case int():
            # msgpack carries unsigned 64-bit ints too; anything wider never gets into an event.
            return celtypes.UintType(value) if value > INT_MAX else celtypes.IntType(value)
        case float():
            return celtypes.DoubleType(value)
        case str():
            return celtypes.StringType(value)
        case dt.datetime():
            return celtypes.TimestampType(value)
        case list():
            return celtypes.ListType([to_cel(item) for item in value])
        case dict():
            return celtypes.MapType({to_cel(key): to_cel(item) for key, item in value.items()})
        case _:
            return value


_FROM_CEL: Final[tuple[tuple[type, Any], ...]] = (
    (celtypes.BoolType, bool),
    (celtypes.DoubleType, float),
    (int, int),
    (str, str.__str__),
    (bytes, bytes),
    (celtypes.TimestampType, lambda moment: _EPOCH + (moment - _EPOCH)),
    (celtypes.DurationType, lambda span: dt.timedelta(seconds=span.total_seconds())),
)


def from_cel(value: Any) -> Any:
    """A cel-python value as plain Python; inside containers timestamps and bytes are strings."""
    kind: Any
    for kind, convert in _FROM_CEL:
        if isinstance(value, kind):
            return convert(value)
    if isinstance(value, celtypes.ListType):
        return [deep_plain(from_cel(item)) for item in value]
    if isinstance(value, celtypes.MapType):
        return {from_cel(key): deep_plain(from_cel(item)) for key, item in value.items()}
    return getattr(value, "__name__", value)


def equal(a: Any, b: Any) -> bool:
    """Structural equality; null equals null here, what `==` makes of null is the interpreter's."""
    if isinstance(a, _NUMBERS) and isinstance(b, _NUMBERS):
        return bool(from_cel(a) == from_cel(b))
    if isinstance(a, celtypes.ListType) and isinstance(b, celtypes.ListType):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, celtypes.MapType) and isinstance(b, celtypes.MapType):
        return len(a) == len(b) and all(
            any(equal(key, other) and equal(item, found) for other, found in b.items())
            for key, item in a.items()
        )
    if isinstance(a, type) or isinstance(b, type) or a is None or b is None:
        return a is b
    # cel-python raises on operands of different types; different types are simply not equal.
    return type(a) is type(b) and bool(from_cel(a) == from_cel(b))


def ordering(op: str) -> Callable[[Any, Any], Any]:
    """`<` and its like: false with null on either side, numbers of any type among each other."""

    def ordered(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return celtypes.BoolType(False)
        if isinstance(a, _NUMBERS) and isinstance(b, _NUMBERS):
            return celtypes.BoolType(ORDERINGS[op](from_cel(a), from_cel(b)))
        if type(a) is not type(b) or not isinstance(a, ORDERED):
            raise FaultError(f"{type(a).__name__} and {type(b).__name__} have no order")
        return celtypes.BoolType(ORDERINGS[op](from_cel(a), from_cel(b)))

    return ordered


_TEXTS = (celtypes.StringType, celtypes.BytesType)


def arithmetic(op: str) -> Callable[[Any, Any], Any]:
    """cel-python's own operation, after null and a mix of int and double are dealt with."""
    standard: Any = base_functions[f"_{op}_"]

    def compute(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return (b if a is None else a) if op == "+" else None
        if isinstance(a, celtypes.BoolType) or isinstance(b, celtypes.BoolType):
            raise FaultError(f"bool {op} is not defined")
        if isinstance(a, _NUMBERS) and isinstance(b, _NUMBERS):
            if op == "/" and from_cel(b) == 0:
                raise FaultError("division by zero")
            if isinstance(a, celtypes.DoubleType) or isinstance(b, celtypes.DoubleType):
                a, b = (celtypes.DoubleType(float(x)) for x in (a, b))
        if op != "+" and (isinstance(a, _TEXTS) or isinstance(b, _TEXTS)):
            # Python's own %, for one, formats.
            raise FaultError(f"{op} is not defined for strings and bytes")
        result = standard(a, b)
        if result is NotImplemented:
            raise FaultError(f"{op} is not defined for these types")
        return celtypes.ListType(result) if type(result) is list else _typed(result)

    return compute


def _typed(value: Any) -> Any:
    """cel-python's own arithmetic leaves bare floats and strings where it forgot to wrap."""
    return to_cel(value) if type(value) in (int, float, str) else value


def add(a: Any, b: Any) -> Any:
    """`+`: a string on just one side joins."""
    one_string = isinstance(a, celtypes.StringType) is not isinstance(b, celtypes.StringType)
    if one_string and a is not None and b is not None:
        return celtypes.StringType(_text(a) + _text(b))
    return _plus(a, b)


_plus: Final = arithmetic("+")


def _text(value: Any) -> str:
    if isinstance(value, celtypes.TimestampType | celtypes.DurationType):
        return str(value)
    if isinstance(value, bytes):
        raise FaultError("bytes cannot be joined to a string")
    return text_of(from_cel(value))


def negate(value: Any) -> Any:
    """Unary minus; null stays null."""
    return None if value is None else _typed(-value)


def truthy(value: Any) -> bool:
    """JavaScript's truth over cel-python's types: lists and maps are true, even empty."""
    if isinstance(value, celtypes.ListType | celtypes.MapType):
        return True
    return bool(value) and value == value


def is_in(item: Any, container: Any) -> Any:
    """`in` a list or a map's keys; false for a null container."""
    if container is None:
        return celtypes.BoolType(False)
    if not isinstance(container, celtypes.ListType | celtypes.MapType):
        raise FaultError("in takes a list or a map")
    members = list(container)
    return celtypes.BoolType(any(equal(item, member) for member in members))


def contains(container: Any, item: Any) -> Any:
    """Substring, item or key; false for null."""
    if not isinstance(container, celtypes.StringType):
        return is_in(item, container)
    if item is None:
        return celtypes.BoolType(False)
    if not isinstance(item, celtypes.StringType):
        raise FaultError("contains is not defined for this type")
    return celtypes.BoolType(str(item) in str(container))


def size(value: Any) -> Any:
    """Length; 0 for null."""
    if isinstance(value, bool | int | float | type):
        raise FaultError("size is not defined for this type")
    return celtypes.IntType(0 if value is None else len(value))


def item_at(container: Any, key: Any) -> Any:
    """`container[key]`; null for whatever is not there."""
    if isinstance(container, celtypes.MapType):
        return next((item for found, item in container.items() if equal(key, found)), None)
    if isinstance(container, celtypes.ListType) and isinstance(key, _NUMBERS):
        position = from_cel(key)
        whole = not isinstance(position, float) or position.is_integer()
        return container[int(position)] if whole and 0 <= position < len(container) else None
    return None
