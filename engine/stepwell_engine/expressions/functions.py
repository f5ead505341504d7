"""The functions of the expression language on plain values: one table for all."""

import base64
import binascii
import datetime as dt
import functools
import importlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from stepwell.durations import parse_duration
from stepwell.errors import StepwellError
from stepwell_engine.expressions.operators import bounded
from stepwell_engine.expressions.values import (
    NUMBERS,
    DeferError,
    FaultError,
    equal,
    is_list,
    is_map,
    plain,
    text_of,
    type_name,
)


def size(value: object) -> int:
    """Code points of a string, items of a list or map; 0 for null."""
    if value is None:
        return 0
    if isinstance(value, str) or is_list(value) or is_map(value):
        return len(value)
    raise FaultError(f"size({type_name(value)}) is not defined; it takes a string, list or map")


def contains(container: object, item: object) -> bool:
    """Substring, list item or map key; false when the container or a searched string is null."""
    if container is None:
        return False
    if isinstance(container, str):
        return item is not None and _text("contains", item) in container
    return is_in(item, container)


def is_in(item: object, container: object) -> bool:
    """`item in container`; false when the container is null."""
    if container is None:
        return False
    if is_list(container):
        return any(equal(item, plain(member)) for member in container)
    if is_map(container):
        return isinstance(item, str) and item in container
    raise FaultError(f"in {type_name(container)} is not defined; use x.contains(y) for strings")


def starts_with(value: object, prefix: object) -> bool:
    """Whether a string starts with another; false if either is null."""
    if value is None or prefix is None:
        return False
    return _text("startsWith", value).startswith(_text("startsWith", prefix))


def ends_with(value: object, suffix: object) -> bool:
    """Whether a string ends with another; false if either is null."""
    if value is None or suffix is None:
        return False
    return _text("endsWith", value).endswith(_text("endsWith", suffix))


def matches(value: object, pattern: object) -> bool:
    """Whether an RE2 pattern is found in a string; false if either is null."""
    if value is None or pattern is None:
        return False
    return _regex(_text("matches", pattern)).search(_text("matches", value)) is not None


@functools.lru_cache(maxsize=512)
def _regex(pattern: str) -> Any:
    # Linear time whatever the pattern: users write these, and events choose the text.
    re2: Any = importlib.import_module("re2")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise FaultError(f"matches: {pattern!r} is not an RE2 pattern: {error}") from None


def check_regex(pattern: str) -> None:
    """Raise FaultError if a literal pattern does not compile."""
    _regex(pattern)


def lowercase(value: object) -> str | None:
    """A string in lower case; null stays null."""
    return None if value is None else _text("lowercase", value).lower()


def uppercase(value: object) -> str | None:
    """A string in upper case; null stays null."""
    return None if value is None else _text("uppercase", value).upper()


def b64decode(value: object) -> str | None:
    """The UTF-8 text in base64, standard or URL-safe, padding optional; null stays null."""
    if value is None:
        return None
    raw = _text("b64decode", value).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(raw + "=" * (-len(raw) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        raise FaultError("b64decode: not base64 of UTF-8 text") from None


def json_parse(value: object) -> Any:
    """The value that JSON text holds; null stays null."""
    if value is None:
        return None
    try:
        return json.loads(_text("json_parse", value), parse_constant=_no_constant, parse_int=_int64)
    except (ValueError, RecursionError):
        raise FaultError("json_parse: not JSON") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _int64(digits: str) -> int | float:
    value = int(digits)
    return value if -(2**63) <= value < 2**63 else float(digits)


def date(value: object) -> dt.datetime | None:
    """A timestamp from ISO 8601 (UTC unless it says) or Unix milliseconds; null stays null."""
    if value is None or isinstance(value, dt.datetime):
        return value
    try:
        if type(value) in NUMBERS:
            return _from_ms(value)
        parsed = dt.datetime.fromisoformat(_text("date", value))
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=dt.UTC)
        return parsed.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise FaultError(f"date: {value!r} is neither ISO 8601 nor Unix milliseconds") from None


def _from_ms(ms: Any) -> dt.datetime:
    if not math.isfinite(ms):
        raise FaultError("date: not a finite number")
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ms)


def now(now_ms: int) -> dt.datetime:
    """The time of the evaluation."""
    return _from_ms(now_ms)


def now_plus(now_ms: int, duration: object) -> dt.datetime | None:
    """The time of the evaluation plus "1h30m" or milliseconds; null stays null."""
    return _shifted("now_plus", now_ms, 1, duration)


def now_minus(now_ms: int, duration: object) -> dt.datetime | None:
    """The time of the evaluation minus "1h30m" or milliseconds; null stays null."""
    return _shifted("now_minus", now_ms, -1, duration)


def _shifted(name: str, now_ms: int, sign: int, duration: object) -> dt.datetime | None:
    if duration is None:
        return None
    if not isinstance(duration, str | int) or isinstance(duration, bool):
        raise FaultError(f'{name}({type_name(duration)}) is not defined; write {name}("1h")')
    try:
        return _from_ms(now_ms + sign * parse_duration(duration, argument=name))
    except (StepwellError, OverflowError):
        raise FaultError(f'{name}: {duration!r} is not a duration; write {name}("1h")') from None


def to_int(value: object) -> Any:
    """`int(x)`: towards zero for doubles; null stays null."""
    if value is None:
        return None
    _refuse_timestamp(value)
    try:
        if isinstance(value, str):
            return bounded(_int_of(value))
        if isinstance(value, int | float):
            return bounded(int(value))
    except (ValueError, OverflowError):
        raise FaultError(f"int: {value!r} is not an int") from None
    raise FaultError(f"int({type_name(value)}) is not defined")


def _int_of(text: str) -> int:
    return int(text, 16 if text.lstrip("-")[:2] in ("0x", "0X") else 10)


def to_double(value: object) -> float | None:
    """`double(x)`; null stays null."""
    if value is None:
        return None
    try:
        if isinstance(value, str | int | float):
            return float(value)
    except ValueError:
        raise FaultError(f"double: {value!r} is not a number") from None
    raise FaultError(f"double({type_name(value)}) is not defined")


def to_string(value: object) -> str | None:
    """`string(x)` of a scalar; null stays null."""
    _refuse_timestamp(value)
    return None if value is None else text_of(value)


_BOOLS: Final = {
    **dict.fromkeys(("true", "True", "TRUE", "t"), True),
    **dict.fromkeys(("false", "False", "FALSE", "f"), False),
}


def to_bool(value: object) -> bool | None:
    """`bool(x)` of a bool or "true" and the like; null stays null."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _BOOLS:
        return _BOOLS[value]
    raise FaultError(f"bool: {value!r} is neither true nor false")


def _same(value: object) -> object:
    return value


def _refuse_timestamp(value: object) -> None:
    if isinstance(value, dt.datetime):
        raise DeferError


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise FaultError(f"{name}({type_name(value)}) is not defined; it takes a string")


@dataclass(frozen=True, slots=True)
class Function:
    """Implementation (None: only the evaluator of record has it), arity, need of the clock."""

    run: Callable[..., Any] | None
    least: int
    most: int
    timed: bool = False


def _record_only(least: int, most: int) -> Function:
    return Function(None, least, most)


FUNCTIONS: Final[dict[str, Function]] = {
    "size": Function(size, 1, 1),
    "contains": Function(contains, 2, 2),
    "startsWith": Function(starts_with, 2, 2),
    "endsWith": Function(ends_with, 2, 2),
    "matches": Function(matches, 2, 2),
    "lowercase": Function(lowercase, 1, 1),
    "uppercase": Function(uppercase, 1, 1),
    "b64decode": Function(b64decode, 1, 1),
    "json_parse": Function(json_parse, 1, 1),
    "date": Function(date, 1, 1),
    "now": Function(now, 0, 0, timed=True),
    "now_plus": Function(now_plus, 1, 1, timed=True),
    "now_minus": Function(now_minus, 1, 1, timed=True),
    "int": Function(to_int, 1, 1),
    "double": Function(to_double, 1, 1),
    "string": Function(to_string, 1, 1),
    "bool": Function(to_bool, 1, 1),
    "dyn": Function(_same, 1, 1),
    **{name: _record_only(1, 1) for name in ("bytes", "duration", "timestamp", "type", "uint")},
    **{
        name: _record_only(1, 2)
        for name in (
            "getDate",
            "getDayOfMonth",
            "getDayOfWeek",
            "getDayOfYear",
            "getFullYear",
            "getHours",
            "getMilliseconds",
            "getMinutes",
            "getMonth",
            "getSeconds",
        )
    },
}
MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})
