"""`ctx.step`: the calls whose results are remembered. Arguments are checked here, before anything is written."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar, TypeVarTuple, overload

from stepwell import step_args as check
from stepwell.events import Event
from stepwell.function import Function, FunctionReference
from stepwell.runtime import UNSET, StepRuntime, SyncStepRuntime, Until

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Duration = int | str | timedelta


class Step:
    """The steps of an asynchronous function.

    Each call names its step; the name (and how often it was used before in this run) is the step's identity. A finished step
    returns its recorded value at once, whenever the function is entered again.

    >>> charge = await ctx.step.run("charge", charge_card, order_id)
    >>> await ctx.step.sleep("cool-off", "24h")
    """

    __slots__ = ("_runtime",)

    def __init__(self, runtime: StepRuntime) -> None:
        self._runtime = runtime

    @overload
    def run(
        self,
        step_id: str,
        handler: Callable[[*Ts], Awaitable[T]],
        *handler_args: *Ts,
        output_type: object = UNSET,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self,
        step_id: str,
        handler: Callable[[*Ts], T],
        *handler_args: *Ts,
        output_type: object = UNSET,
    ) -> Coroutine[Any, Any, T]: ...
    def run(
        self,
        step_id: str,
        handler: Callable[[*Ts], Any],
        *handler_args: *Ts,
        output_type: object = UNSET,
    ) -> Coroutine[Any, Any, Any]:
        """Run `handler(*handler_args)` as a step: at least once, recorded exactly once.

        `handler` may be async or sync; a sync one runs in a thread. What it returns (JSON types, datetime, date, bytes, Decimal,
        UUID, set; dataclasses and Pydantic models by `output_type` or its annotation) is what every replay returns. Raises
        `StepError` once its attempts are used up, and `OutputUnserializableError` for a value that can't be recorded.

        >>> await ctx.step.run("charge", charge_card, order_id, output_type=Charge)
        """
        return self._runtime.run(step_id, handler, handler_args, output_type)

    def sleep(self, step_id: str, duration: Duration) -> Coroutine[Any, Any, None]:
        """Sleep for `duration` (ms as int, "24h", timedelta; at most 366 days) without holding anything.

        >>> await ctx.step.sleep("cool-off", "24h")
        """
        return self._runtime.sleep(step_id, "d", check.duration(duration, "duration"))

    def sleep_until(self, step_id: str, until: Until) -> Coroutine[Any, Any, None]:
        """Sleep until a moment: an aware datetime, an ISO 8601 string or ms since the epoch. The past is now.

        >>> await ctx.step.sleep_until("monday", datetime(2027, 1, 4, 9, tzinfo=UTC))
        """
        return self._runtime.sleep(step_id, "u", check.until(until, "until"))

    def wait_for_event(
        self,
        step_id: str,
        *,
        event: str,
        timeout: Duration,
        if_exp: str | None = None,
        match: str | None = None,
        lookback: bool = False,
    ) -> Coroutine[Any, Any, Event | None]:
        """Wait for an event accepted from now on; None when `timeout` passes first.

        `if_exp` is CEL over `event` (the run's) and `async` (the candidate); `match="data.id"` is short for
        `event.data.id == async.data.id`. `lookback=True` also sees events accepted since the run was created (of the last
        seven days, the newest 1,000 of that name); the name must be listed in `create_function(lookback=[...])`.

        >>> shipped = await ctx.step.wait_for_event("shipped", event="shop/order.shipped", match="data.id", timeout="2d")
        """
        return self._runtime.wait(step_id, check.wait(event, timeout, if_exp, match, lookback))

    def wait_for_signal(
        self, step_id: str, *, signal: str, timeout: Duration, on_conflict: str = "fail"
    ) -> Coroutine[Any, Any, Any]:
        """Wait for a signal by name; returns its data, None on timeout.

        One run waits for a name at a time. `on_conflict="fail"` raises `SignalConflictError` in the newcomer, "replace" takes the
        name over; the wait it is taken from isn't told, and ends with None at its own timeout.

        >>> answer = await ctx.step.wait_for_signal("approval", signal=f"approve-{order}", timeout="7d")
        """
        return self._runtime.wait_signal(step_id, check.signal_wait(signal, timeout, on_conflict))

    def send_event(
        self, step_id: str, events: Event | Sequence[Event]
    ) -> Coroutine[Any, Any, list[str]]:
        """Send events exactly once, in the write that records the step; returns their ids.

        >>> await ctx.step.send_event("announce", Event(name="shop/order.paid", data={"id": 7}))
        """
        return self._runtime.send_event(step_id, check.events(events))

    def send_signal(
        self, step_id: str, *, signal: str, data: object = None, hold: Duration | None = None
    ) -> Coroutine[Any, Any, str | None]:
        """Send a signal; returns the id of the run that received it, None when nobody waits.

        `hold` keeps an unreceived signal that long for the next run that waits for it.

        >>> await ctx.step.send_signal("go", signal="approve-7", data={"by": "mia"}, hold="1h")
        """
        return self._runtime.send_signal(
            step_id, check.name(signal, "signal"), data, check.hold(hold)
        )

    @overload
    def invoke(
        self,
        step_id: str,
        *,
        function: Function[T],
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
        v: str | None = None,
        cancel_child: bool = False,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def invoke(
        self,
        step_id: str,
        *,
        function: FunctionReference,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
        v: str | None = None,
        cancel_child: bool = False,
    ) -> Coroutine[Any, Any, Any]: ...
    def invoke(
        self,
        step_id: str,
        *,
        function: Function[Any] | FunctionReference,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
        v: str | None = None,
        cancel_child: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """Call another function and wait for its result, holding nothing meanwhile.

        Raises `StepError` when it fails, is cancelled, is unknown, or `timeout` (default 366 days) passes; it is not retried.
        After a timeout the child keeps running. `cancel_child=True` cancels it then, and when this run ends first.

        >>> receipt = await ctx.step.invoke("invoice", function=make_invoice, data={"order": 7})
        """
        return self._runtime.invoke(step_id, check.invoke(function, data, timeout, v, cancel_child))

    def invoke_by_id(
        self,
        step_id: str,
        *,
        function_id: str,
        app_id: str | None = None,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
        v: str | None = None,
        cancel_child: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """As `invoke`, by name: `function_id` is the local id, `app_id` this app's when not given."""
        target = FunctionReference(app_id or self._runtime.app_id, function_id)
        return self._runtime.invoke(step_id, check.invoke(target, data, timeout, v, cancel_child))


class StepSync:
    """The steps of a synchronous function: the calls of `Step`, blocking, each on the handler's own thread."""

    __slots__ = ("_runtime",)

    def __init__(self, runtime: SyncStepRuntime) -> None:
        self._runtime = runtime

    def run(
        self,
        step_id: str,
        handler: Callable[[*Ts], T],
        *handler_args: *Ts,
        output_type: object = UNSET,
    ) -> T:
        """As `Step.run`."""
        result: T = self._runtime.run(step_id, handler, handler_args, output_type)
        return result

    def sleep(self, step_id: str, duration: Duration) -> None:
        """As `Step.sleep`."""
        self._runtime.sleep(step_id, "d", check.duration(duration, "duration"))

    def sleep_until(self, step_id: str, until: Until) -> None:
        """As `Step.sleep_until`."""
        self._runtime.sleep(step_id, "u", check.until(until, "until"))

    def wait_for_event(
        self,
        step_id: str,
        *,
        event: str,
        timeout: Duration,
        if_exp: str | None = None,
        match: str | None = None,
        lookback: bool = False,
    ) -> Event | None:
        """As `Step.wait_for_event`."""
        return self._runtime.wait(step_id, check.wait(event, timeout, if_exp, match, lookback))

    def wait_for_signal(
        self, step_id: str, *, signal: str, timeout: Duration, on_conflict: str = "fail"
    ) -> Any:
        """As `Step.wait_for_signal`."""
        return self._runtime.wait_signal(step_id, check.signal_wait(signal, timeout, on_conflict))

    def send_event(self, step_id: str, events: Event | Sequence[Event]) -> list[str]:
        """As `Step.send_event`."""
        return self._runtime.send_event(step_id, check.events(events))

    def send_signal(
        self, step_id: str, *, signal: str, data: object = None, hold: Duration | None = None
    ) -> str | None:
        """As `Step.send_signal`."""
        return self._runtime.send_signal(
            step_id, check.name(signal, "signal"), data, check.hold(hold)
        )

    @overload
    def invoke(
        self,
        step_id: str,
        *,
        function: Function[T],
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
        v: str | None = None,
        cancel_child: bool = False,
    ) -> T: ...
    @overload
    def invoke(
        self,
        step_id: str,
        *,
        function: FunctionReference,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
        v: str | None = None,
        cancel_child: bool = False,
    ) -> Any: ...
    def invoke(
        self,
        step_id: str,
        *,
        function: Function[Any] | FunctionReference,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
        v: str | None = None,
        cancel_child: bool = False,
    ) -> Any:
        """As `Step.invoke`."""
        return self._runtime.invoke(step_id, check.invoke(function, data, timeout, v, cancel_child))

    def invoke_by_id(
        self,
        step_id: str,
        *,
        function_id: str,
        app_id: str | None = None,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
        v: str | None = None,
        cancel_child: bool = False,
    ) -> Any:
        """As `Step.invoke_by_id`."""
        target = FunctionReference(app_id or self._runtime.app_id, function_id)
        return self._runtime.invoke(step_id, check.invoke(target, data, timeout, v, cancel_child))
