"""`trigger`: a function called again and again until it returns or has no attempt left."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import Any, Final, TypeVar

from stepwell import client as real
from stepwell.clock import SystemClock
from stepwell.context import Context, ContextSync
from stepwell.errors import ConfigError
from stepwell.events import Event, decode_event, encode_event
from stepwell.function import Function
from stepwell.group import Group, GroupSync
from stepwell.middleware import MiddlewareStack, TransformOutputResult, drive
from stepwell.step import Step, StepSync
from stepwell.testing.mocked.steps import Steps
from stepwell.testing.mocked.sync import SyncSteps
from stepwell.testing.mocked.values import ID, Result, Status, UnstubbedStepError, is_final

T = TypeVar("T")

_RUN_ID: Final = "test"


def trigger(
    fn: Function[T],
    event: Event | Sequence[Event],
    client: real.Client | None = None,
    *,
    step_stubs: Mapping[str, object] | None = None,
) -> Result[T]:
    """Run `fn` to its end, blocking; callable from async tests too.

    Callbacks of `step.run` really run, sleeps are skipped, retries happen at once. `step_stubs` gives
    the result of any step by its id: an exception makes the step fail, `Timeout` time out. What the
    handler sends by a client of its own is really sent. `client`: whose middleware is used, by default
    the function's. Raises `UnstubbedStepError`.

    >>> result = mocked.trigger(fulfil, Event("shop/order"), step_stubs={"paid": mocked.Timeout})
    >>> assert result.status is mocked.Status.COMPLETED
    """
    events = [event] if isinstance(event, Event) else list(event)
    if not events:
        raise ConfigError("trigger(event=): the list is empty; give at least one Event")
    run = MockedRun(fn, events, client or fn.client, dict(step_stubs or {}))
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run.finish()
    return _in_thread(run.finish)


def _in_thread(work: Callable[[], T]) -> T:
    done: list[T] = []
    failed: list[BaseException] = []

    def call() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=copy_context().run, args=(call,), name="stepwell-mocked")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


class MockedRun:
    """One run of a function: what its entries share."""

    def __init__(
        self, fn: Function[Any], events: Sequence[Event], client: Any, stubs: dict[str, object]
    ) -> None:
        now = SystemClock().now_ms()
        self.fn = fn
        self.events = [decode_event(encode_event(event), ID, now) for event in events]
        self.client = client
        self.stubs = stubs
        self.memo: dict[tuple[str, int], Callable[[], Any]] = {}
        self.unstubbed: UnstubbedStepError | None = None

    def finish(self) -> Result[Any]:
        """Enter the function until it returns or has no attempt left."""
        most = self.fn.retries.attempts
        for attempt in range(most):
            entry = Steps(self, self._stack())
            result = self._enter(entry, attempt)
            if self.unstubbed is not None:
                # Also when the handler caught it: a result made without the step means nothing.
                raise self.unstubbed
            if result.error is None:
                return Result(Status.COMPLETED, result.output)
            if attempt + 1 == most or is_final(result.error):
                return Result(Status.FAILED, error=result.error)
        raise AssertionError

    def _stack(self) -> MiddlewareStack | None:
        factories = (*self.client.middleware, *self.fn.options.middleware)
        return MiddlewareStack.build(
            self.client,
            factories,
            is_async=self.fn.is_handler_async,
            where=f"function {self.fn.fn_id!r}",
        )

    def _enter(self, steps: "Steps", attempt: int) -> TransformOutputResult:
        work = steps.entry(attempt)
        return asyncio.run(work) if self.fn.is_handler_async else drive(work)

    def context(self, steps: "Steps", attempt: int) -> Context | ContextSync:
        """What the handler is called with."""
        shared: dict[str, Any] = {
            "event": self.events[0],
            "events": self.events,
            "run_id": _RUN_ID,
            "entry_attempt": attempt,
            "max_attempts": self.fn.retries.attempts,
            "function_id": self.fn.id,
            "fn_id": self.fn.fn_id,
            "app_id": self.fn.app_id,
            "logger": self.client.logger,
        }
        if self.fn.is_handler_async:
            return Context(step=Step(steps), group=Group(steps), **shared)
        blocking = SyncSteps(steps)
        return ContextSync(step=StepSync(blocking), group=GroupSync(blocking), **shared)
