"""The checks of the client's arguments: each returns the validated value, or says what to write."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict, TypeVar, cast

from stepwell.durations import Duration, Until, parse_duration, parse_until
from stepwell.errors import ConfigError, EventInvalidError, LimitExceededError
from stepwell.events import Event, encode_event
from stepwell.function import Function, FunctionReference, check_id
from stepwell.gateway import BulkQuery, Removal, RunQuery
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
        app_id=app_id,
        fn_id=fn_id,
        status=_status(status, "list_runs(status=)"),
        limit=limit,
        cursor=cursor or "",
    )


class Which(TypedDict, total=False):
    """What `cancel_runs` may be given."""

    app_id: str | None
    fn_id: str | None
    status: RunStatus | str | None
    started_after: Until | None
    started_before: Until | None
    if_exp: str | None
    limit: int | None
    children: bool
    dry_run: bool
    reason: str | None


def cancel_runs(
    *,
    app_id: str | None = None,
    fn_id: str | None = None,
    status: RunStatus | str | None = None,
    started_after: Until | None = None,
    started_before: Until | None = None,
    if_exp: str | None = None,
    limit: int | None = None,
    children: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> BulkQuery:
    """What `cancel_runs` was asked for."""
    if app_id is None and fn_id is None:
        raise ConfigError(
            "cancel_runs: neither fn_id= nor app_id= is given, which would cancel the runs of every app; "
            'write fn_id="fulfil", or app_id="shop" for all of an app'
        )
    for argument, given in (("app_id", app_id), ("fn_id", fn_id)):
        if given is not None:
            check_id(given, f"cancel_runs({argument}=)")
    found = _status(status, "cancel_runs(status=)")
    if found is not None and found.ended:
        raise ConfigError(f"cancel_runs(status=): runs that are {found.value} have ended")
    if if_exp is not None:
        text(if_exp, "cancel_runs(if_exp=)", "event.data.tenant == 't1'")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ConfigError(f"cancel_runs(limit=): {limit!r}; write an int from 1, or leave it out")
    return BulkQuery(
        app_id=app_id,
        fn_id=fn_id,
        status=found,
        after_ms=_moment(started_after, "started_after") or 0,
        before_ms=_moment(started_before, "started_before"),
        if_exp=if_exp,
        limit=limit,
        children=bool(children),
        dry_run=bool(dry_run),
        reason=cancel_reason(reason),
    )


def removal(app_id: str, fn_id: str, runs: str) -> Removal:
    """What `remove_function` was asked for."""
    check_id(fn_id, "remove_function(fn_id=)")
    check_id(app_id, "remove_function(app_id=)")
    if runs not in ("refuse", "cancel", "keep"):
        raise ConfigError(f'remove_function(runs=): {runs!r}; write "refuse", "cancel" or "keep"')
    return Removal(app_id=app_id, fn_id=fn_id, runs=runs)


def cancel_reason(reason: str | None) -> str:
    """Why something is cancelled, as it is recorded."""
    return "function cancelled" if reason is None else text(reason, "reason", "out of stock")


def _moment(value: Until | None, argument: str) -> int | None:
    return None if value is None else parse_until(value, argument=f"cancel_runs({argument}=)")


def _status(status: RunStatus | str | None, argument: str) -> RunStatus | None:
    if status is None:
        return None
    try:
        return RunStatus(status)
    except ValueError:
        known = ", ".join(repr(s.value) for s in RunStatus)
        raise ConfigError(f"{argument}: {status!r}; write one of {known}") from None
