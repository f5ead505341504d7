"""Values as expressions see them: what Python types become, and when two are equal, true or text.

Plain values here: None, bool, int, float, str, list, dict, and datetime (only from functions).
"""

import base64
import datetime as dt
import decimal
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

NULL: Final = type(None)
PLAIN: Final = frozenset({str, int, float, bool, NULL, list, dict})
ATOMS: Final = frozenset({str, int, float, bool, NULL, dt.datetime})
NUMBERS: Final = frozenset({int, float})
ORDERED: Final = frozenset({str, bool, dt.datetime})

_CEL_NAMES: Final[dict[type, str]] = {
    NULL: "null",
    bool: "bool",
    int: "int",
    float: "double",
    str: "string",
    list: "list",
    dict: "map",
    dt.datetime: "timestamp",
}


class FaultError(Exception):
    """An expression has no value for this event; `||`, `&&`, `exists` and `all` may absorb it."""


class DeferError(Exception):
    """The closures meet values that only the evaluator of record handles; never seen by callers."""


def type_name(value: object) -> str:
    """The CEL name of a value's type, for messages."""
    return _CEL_NAMES.get(type(value), type(value).__name__)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """`type(value) is list`, spelled so that type checkers know the items are unknown."""
    return type(value) is list


def is_map(value: object) -> TypeGuard[dict[Any, Any]]:
    """`type(value) is dict`, spelled so that type checkers know the items are unknown."""
    return type(value) is dict


def plain(value: object) -> Any:
    """One level of a stored value in CEL: ext types as ISO strings or base64, sets as lists."""
    if type(value) in PLAIN:
        return value
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return convert(value)
    raise FaultError(f"a value of type {type(value).__name__} has no CEL form")


def _sorted_set(value: Any) -> list[Any]:
    # Sets have no order: sorting, as serde's to_json does, makes index keys and joins repeatable.
    members = [deep_plain(item) for item in value]
    return sorted(members, key=lambda item: (type(item).__name__, str(item)))


def _base64(raw: Any) -> str:
    return base64.b64encode(raw).decode()


# Order matters: bool is an int, datetime a date.
_CONVERSIONS: tuple[tuple[Any, Any], ...] = (
    (str, str.__str__),
    (bool, bool),
    (int, int),
    (float, float),
    (dt.datetime, dt.datetime.isoformat),
    (dt.date, dt.date.isoformat),
    ((bytes, bytearray, memoryview), _base64),
    (decimal.Decimal, str),
    (uuid.UUID, str),
    (Mapping, dict),
    (tuple, list),
    (list, list),
    ((set, frozenset), _sorted_set),
)


def deep_plain(value: object) -> Any:
    """`plain` at every level."""
    value = plain(value)
    if is_list(value):
        return [deep_plain(item) for item in value]
    if is_map(value):
        return {key: deep_plain(item) for key, item in value.items()}
    return value


def result_of(value: object) -> Any:
    """A computed value as callers get it: a timestamp stays a datetime, containers are plain."""
    return value if type(value) in ATOMS else deep_plain(value)


def truthy(value: object) -> bool:
    """False, null, 0, NaN and "" are false, all else is true: a missing flag is simply off."""
    if value is True or value is False:
        return value
    if value is None or value == "":
        return False
    return not (type(value) in NUMBERS and (value == 0 or value != value))


def equal(left: Any, right: Any) -> bool:
    """Structural equality of plain values: 150 == 150.0, true != 1, other types never equal."""
    if type(left) is not type(right):
        return type(left) in NUMBERS and type(right) in NUMBERS and bool(left == right)
    if is_list(left):
        return len(left) == len(right) and all(
            equal(plain(a), plain(b)) for a, b in zip(left, right, strict=True)
        )
    if is_map(left):
        return left.keys() == right.keys() and all(
            equal(plain(item), plain(right[key])) for key, item in left.items()
        )
    return bool(left == right)


def text_of(value: object) -> str:
    """How a scalar reads when joined to a string; equal numbers read the same (150.0 is "150")."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 2**63
        return str(int(value)) if whole else repr(value)
    if isinstance(value, int):
        return str(value)
    raise FaultError(f"a {type_name(value)} cannot be joined to a string")


def key_text(value: object) -> str | None:
    """The text of a key expression's result, or None when it is null.

    Equal values give the same text, 150 and 150.0 both "150"; lists and maps give sorted JSON.

    Example: `key_text(compile("event.data.user_id").evaluate(event))`.
    """
    value = result_of(value)
    if value is None:
        return None
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if is_list(value) or is_map(value):
        return json.dumps(
            _canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
    return text_of(value)


def _canonical(value: object) -> Any:
    if is_list(value):
        return [_canonical(item) for item in value]
    if is_map(value):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
