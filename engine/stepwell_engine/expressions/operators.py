"""Arithmetic and ordering on plain values.

Null is tolerated: `+` yields the other side, other arithmetic null, an ordering false.
"""

import datetime as dt
import operator
from collections.abc import Callable
from typing import Any, Final

from stepwell_engine.expressions.values import (
    NUMBERS,
    ORDERED,
    DeferError,
    FaultError,
    is_list,
    text_of,
    type_name,
)

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1

ORDERINGS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def can_order(left: object, right: object) -> bool:
    """False when either side is null; raises FaultError when the two types have no order."""
    if left is None or right is None:
        return False
    kind = type(left)
    if kind in NUMBERS and type(right) in NUMBERS:
        return True
    if kind is type(right) and kind in ORDERED:
        return True
    raise FaultError(
        f"{type_name(left)} and {type_name(right)} have no order; convert one, e.g. int(x)"
    )


def add(left: Any, right: Any) -> Any:
    """`+`: numbers add, lists concatenate, a string joins; null yields the other side."""
    if left is None:
        return right
    if right is None:
        return left
    if type(left) in NUMBERS and type(right) in NUMBERS:
        return bounded(left + right)
    _defer_timestamps(left, right)
    if isinstance(left, str) or isinstance(right, str):
        return text_of(left) + text_of(right)
    if is_list(left) and is_list(right):
        return left + right
    raise _no_overload("+", left, right)


def subtract(left: Any, right: Any) -> Any:
    """`-` of numbers; null if either side is null."""
    return bounded(left - right) if _numeric("-", left, right) else None


def multiply(left: Any, right: Any) -> Any:
    """`*` of numbers; null if either side is null."""
    return bounded(left * right) if _numeric("*", left, right) else None


def divide(left: Any, right: Any) -> Any:
    """`/` of numbers, towards zero for two ints; null if either side is null.

    By zero it faults for doubles too: in JSON 0 and 0.0 are the same number.
    """
    if not _numeric("/", left, right):
        return None
    if right == 0:
        raise FaultError("division by zero")
    if type(left) is float or type(right) is float:
        return left / right
    quotient = abs(left) // abs(right)
    return bounded(quotient if (left < 0) == (right < 0) else -quotient)


def modulo(left: Any, right: Any) -> Any:
    """`%` of ints, with the sign of the dividend; null if either side is null."""
    if not _numeric("%", left, right):
        return None
    if type(left) is float or type(right) is float:
        raise _no_overload("%", left, right)
    if right == 0:
        raise FaultError("modulo by zero")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def negate(value: Any) -> Any:
    """Unary `-`; null stays null."""
    if value is None:
        return None
    if type(value) not in NUMBERS:
        raise FaultError(f"-{type_name(value)} is not defined")
    return bounded(-value)


ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": modulo,
}


def bounded(value: Any) -> Any:
    """The number itself; raises FaultError when an int leaves 64 bits, as CEL demands."""
    if type(value) is int and not INT_MIN <= value <= INT_MAX:
        raise FaultError("int overflow: the result does not fit in 64 bits")
    return value


def _numeric(op: str, left: object, right: object) -> bool:
    if left is None or right is None:
        return False
    if type(left) in NUMBERS and type(right) in NUMBERS:
        return True
    _defer_timestamps(left, right)
    raise _no_overload(op, left, right)


def _defer_timestamps(left: object, right: object) -> None:
    # Timestamps take durations, which have no plain form here.
    if isinstance(left, dt.datetime) or isinstance(right, dt.datetime):
        raise DeferError


def _no_overload(op: str, left: object, right: object) -> FaultError:
    return FaultError(f"{type_name(left)} {op} {type_name(right)} is not defined")
