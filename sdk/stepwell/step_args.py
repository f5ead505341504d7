"""The checks of step arguments: each returns the validated value, or raises an error that names the argument."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from stepwell.durations import MAX_SLEEP_MS, parse_duration, parse_until
from stepwell.errors import StepwellError
from stepwell.events import Event
from stepwell.function import Function, FunctionReference
from stepwell.runtime import UNSET, Invoke, SignalWait, Until, Wait


class StepArgumentError(StepwellError, retriable=False):
    """A step was called with an argument that can't be right. The run fails at once: trying again would not help."""


def name(value: object, argument: str, *, longest: int = 255) -> str:
    """A non-empty string of at most `longest` characters."""
    if not isinstance(value, str) or not value:
        raise StepArgumentError(f"{argument} must be a non-empty string, not {value!r}")
    if len(value) > longest:
        raise StepArgumentError(
            f"{argument} has {len(value)} characters; at most {longest} are allowed"
        )
    return value


def duration(value: int | str | timedelta, argument: str) -> int:
    """A duration in ms, at most 366 days."""
    ms = parse_duration(value, argument=argument)
    if ms > MAX_SLEEP_MS:
        raise StepArgumentError(f"{argument} is {value!r}; a sleep or wait lasts at most 366 days")
    return ms


def until(value: Until, argument: str) -> int:
    """A moment in ms since the epoch."""
    return parse_until(value, argument=argument)


def hold(value: int | str | timedelta | None) -> int:
    """How long to hold an unreceived signal, ms; 0 = not at all."""
    return 0 if value is None else duration(value, "hold")


def wait(
    event: str,
    timeout: int | str | timedelta,
    if_exp: str | None,
    match: str | None,
    lookback: bool,
) -> Wait:
    """A wait for an event."""
    name(event, "event", longest=512)
    if "*" in event:
        raise StepArgumentError(
            f"event is {event!r}; a wait takes one exact event name, wildcards are for triggers"
        )
    if if_exp is not None and match is not None:
        raise StepArgumentError("give either if_exp= or match=, not both")
    expression = if_exp
    if match is not None:
        name(match, "match")
        expression = f"event.{match} == async.{match}"
    return Wait(event, expression, duration(timeout, "timeout"), lookback)


def declared(wait: Wait, function: Function[Any]) -> None:
    """A wait looks back only for names whose events are kept: those its function declares."""
    if wait.lookback and wait.event not in function.options.lookback:
        names = ", ".join(repr(name) for name in (*function.options.lookback, wait.event))
        raise StepArgumentError(
            f"lookback is True, but no past events {wait.event!r} are kept for function "
            f"{function.fn_id!r}; write create_function(fn_id={function.fn_id!r}, lookback=[{names}])"
        )


def signal_wait(signal: str, timeout: int | str | timedelta, on_conflict: str) -> SignalWait:
    """A wait for a signal."""
    if on_conflict not in ("fail", "replace"):
        raise StepArgumentError(f'on_conflict is {on_conflict!r}; write "fail" or "replace"')
    return SignalWait(
        name(signal, "signal"), duration(timeout, "timeout"), on_conflict == "replace"
    )


def events(value: Event | Sequence[Event]) -> tuple[Event, ...]:
    """One event or several, as a tuple."""
    many = (value,) if isinstance(value, Event) else tuple(value)
    for index, event in enumerate(many):
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise StepArgumentError(
                f"events[{index}] is {type(event).__name__}; write stepwell.Event(name=..., data=...)"
            )
    if not many:
        raise StepArgumentError("events is empty; give at least one Event")
    return many


def invoke(
    function: Function[Any] | FunctionReference,
    data: Mapping[str, object] | None,
    timeout: int | str | timedelta | None,
    v: str | None,
    cancel_child: bool,
) -> Invoke:
    """A call of another function."""
    output_type: Any = UNSET
    if isinstance(function, Function):
        app_id, fn_id = function.app_id, function.fn_id
        output_type = function.result_type
    elif isinstance(function, FunctionReference):  # pyright: ignore[reportUnnecessaryIsInstance]
        app_id, fn_id = function.app_id, function.function_id
    else:
        raise StepArgumentError(
            f"function is {function!r}; pass what create_function returned, or stepwell.reference_function(app_id=..., function_id=...)"
        )
    if data is not None and not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise StepArgumentError(
            f"data is {type(data).__name__}; pass a mapping with string keys, it becomes event.data"
        )
    wait_ms = MAX_SLEEP_MS if timeout is None else duration(timeout, "timeout")
    return Invoke(app_id, fn_id, dict(data or {}), wait_ms, v, output_type, cancel_child)
