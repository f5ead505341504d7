"""The checks of the client's arguments: each returns the validated value, or says what to write."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from stepwell.durations import Duration, parse_duration
from stepwell.errors import ConfigError, EventInvalidError, LimitExceededError
from stepwell.events import Event, encode_event
from stepwell.function import Function, FunctionReference, check_id
from stepwell.gateway import RunQuery
from stepwell.limits import Limits
from stepwell.records import RunStatus
from stepwell.serde.values import pack

T = TypeVar("T")

DEFAULT_URL: Final = "redis://localhost:6379/0"
URL_VARIABLE: Final = "STEPWELL_REDIS_URL"
INVOKED_EVENT: Final = "inngest/function.invoked"
MAX_PAGE: Final = 1_000


def redis_url(given: str | None) -> str:
    """The URL to use: the argument, else the environment's, else this machine's Redis."""
    return given or os.environ.get(URL_VARIABLE) or DEFAULT_URL


def instance(value: T | None, argument: str, kind: type[Any], advice: str) -> T | None:
    """None, or an instance of `kind`."""
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{argument}: {value!r}; write {advice}, or leave it out")
    return value


def text(value: object, argument: str, example: str) -> str:
    """A non-empty string."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{argument}: {value!r}; write a string such as {example!r}")
    return value


def event_list(events: Event | Iterable[Event]) -> list[Event]:
    """One event or several, as a new list. The events themselves are checked when encoded."""
    if isinstance(events, Event):
        return [events]
    given: object = events
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
        kind = type(events).__name__
        raise EventInvalidError(
            f"events: {events!r} is a {kind}; write Event(name=..., data=...), or a list of them"
        )
    return list(events)


def invoked_event(app_id: str, fn_id: str, data: object, limits: Limits) -> bytes:
    """The event that starts an invoked function, encoded."""
    if data is not None and not isinstance(data, Mapping):
        kind = type(data).__name__
        raise ConfigError(f"data: {data!r} is a {kind}; write a dict, it becomes event.data")
    given = cast("Mapping[str, Any]", data or {})
    event = Event(INVOKED_EVENT, {**given, "_inngest": {"fn_id": f"{app_id}-{fn_id}"}})
    encoded = encode_event(event)
    _check_size("data", encoded, limits)
    return encoded


def signal_value(data: object, limits: Limits) -> bytes:
    """A signal's data, packed."""
    packed = pack(data, where="data")
    _check_size("data", packed, limits)
    return packed


def _check_size(what: str, packed: bytes, limits: Limits) -> None:
    if len(packed) > limits.event:
        raise LimitExceededError("event", limits.event, len(packed), f"the bytes of {what}")


def target(function: object) -> tuple[str, str] | str:
    """App and function id, or the `app-fn` text that the registry must resolve."""
    if isinstance(function, Function):
        return function.app_id, function.fn_id
    if isinstance(function, FunctionReference):
        return function.app_id, function.function_id
    if isinstance(function, str) and function:
        return function
    raise ConfigError(
        f"function: {function!r}; pass what create_function returned, "
        'reference_function(app_id=, function_id=), or the text "app-fn"'
    )


def seconds(timeout: Duration | None, argument: str = "timeout") -> float | None:
    """A timeout in seconds; None = none."""
    return None if timeout is None else parse_duration(timeout, argument=argument) / 1000


def run_query(
    app_id: str | None,
    fn_id: str | None,
    status: RunStatus | str | None,
    limit: int,
    cursor: str | None,
) -> RunQuery:
    """What `list_runs` was asked for."""
    if app_id is not None:
        check_id(app_id, "list_runs(app_id=)")
    if fn_id is not None:
        check_id(fn_id, "list_runs(fn_id=)")
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
        raise ConfigError(f"list_runs(limit=): {limit!r}; write an int from 1 to {MAX_PAGE:,}")
    if cursor is not None and not isinstance(cursor, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"list_runs(cursor=): {cursor!r}; pass the .cursor of the page before")
    return RunQuery(
        app_id=app_id, fn_id=fn_id, status=_status(status), limit=limit, cursor=cursor or ""
    )


def _status(status: RunStatus | str | None) -> RunStatus | None:
    if status is None:
        return None
    try:
        return RunStatus(status)
    except ValueError:
        known = ", ".join(repr(s.value) for s in RunStatus)
        raise ConfigError(f"list_runs(status=): {status!r}; write one of {known}") from None
