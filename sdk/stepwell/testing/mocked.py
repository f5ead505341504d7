"""One function without a server: its steps run here and now, or are stubbed by their ids.

For what goes on between functions, and for time, use `stepwell.testing.Engine`.
"""

import asyncio
import enum
import inspect
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from stepwell import client as real
from stepwell import step_args as check
from stepwell.clock import SystemClock
from stepwell.connections import Connections
from stepwell.context import STEP_ATTEMPT, Context, ContextSync
from stepwell.errors import (
    INVOKE_TIMEOUT_MESSAGE,
    INVOKE_TIMEOUT_NAME,
    ConfigError,
    OutputUnserializableError,
    StepError,
    StepNestedError,
    StepwellError,
    UnserializableError,
    error_payload,
    from_payload,
)
from stepwell.events import Event, decode_event, encode_event, encode_events
from stepwell.function import Function
from stepwell.gateway import Gateway
from stepwell.group import Group, GroupSync
from stepwell.middleware import (
    MiddlewareStack,
    Opcode,
    StepMemos,
    TransformOutputResult,
    TransformOutputStepInfo,
    drive,
)
from stepwell.runtime import Invoke, SignalWait, Wait
from stepwell.serde.outputs import Codec, codec_for, pack_output
from stepwell.serde.values import unpack
from stepwell.step import Step, StepSync

__all__ = ["Client", "Result", "Status", "Timeout", "UnstubbedStepError", "trigger"]

T = TypeVar("T")

_ID: Final = "0" * 26
_RUN_ID: Final = "test"
_IN_STEP: ContextVar[bool] = ContextVar("stepwell_mocked_in_step", default=False)


class Status(enum.Enum):
    """How the function ended."""

    COMPLETED = "Completed"
    FAILED = "Failed"


class _Timeout:
    def __repr__(self) -> str:
        return "mocked.Timeout"


Timeout: Final = _Timeout()
"""As a stub: the wait, signal or invoke of that id times out."""


class UnstubbedStepError(StepwellError, retriable=False):
    """A step that only another function or an event can finish has no stub."""

    def __init__(self, step_id: str, op: str) -> None:
        super().__init__(
            f"step {step_id} is not stubbed: a {op} needs its result in step_stubs="
            f"{{{step_id!r}: ...}}, or mocked.Timeout"
        )
        self.step_id = step_id


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What became of the function: `output` when it completed, `error` when it failed."""

    status: Status
    output: T | None = None
    error: Exception | None = None


class Client(real.Client):
    """A client that sends nothing: `send` checks its events and returns an id of zeros for each."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._connections = _NoServer(self.options)

    async def _send(self, batch: Sequence[Event]) -> list[str]:
        encode_events(batch, self.limits)
        return [_ID] * len(batch)


class _NoServer(Connections):
    async def get(self) -> Gateway:
        raise ConfigError(
            "a mocked.Client has no server; use stepwell.testing.Engine for what needs one"
        )


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
    run = _Run(fn, events, client or fn.client, dict(step_stubs or {}))
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


def _final(error: Exception) -> bool:
    """Whether another attempt is out of question."""
    return isinstance(error, StepwellError) and not error.retriable


class _Run:
    """One run of a function: what its entries share."""

    def __init__(
        self, fn: Function[Any], events: Sequence[Event], client: Any, stubs: dict[str, object]
    ) -> None:
        now = SystemClock().now_ms()
        self.fn = fn
        self.events = [decode_event(encode_event(event), _ID, now) for event in events]
        self.client = client
        self.stubs = stubs
        self.memo: dict[tuple[str, int], Callable[[], Any]] = {}
        self.unstubbed: UnstubbedStepError | None = None

    def finish(self) -> Result[Any]:
        """Enter the function until it returns or has no attempt left."""
        most = self.fn.retries.attempts
        for attempt in range(most):
            entry = _Steps(self, self._stack())
            result = self._enter(entry, attempt)
            if self.unstubbed is not None:
                # Also when the handler caught it: a result made without the step means nothing.
                raise self.unstubbed
            if result.error is None:
                return Result(Status.COMPLETED, result.output)
            if attempt + 1 == most or _final(result.error):
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

    def _enter(self, steps: "_Steps", attempt: int) -> TransformOutputResult:
        work = steps.entry(attempt)
        return asyncio.run(work) if self.fn.is_handler_async else drive(work)

    def context(self, steps: "_Steps", attempt: int) -> Context | ContextSync:
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
        blocking = _SyncSteps(steps)
        return ContextSync(step=StepSync(blocking), group=GroupSync(blocking), **shared)


class _Steps:
    """`StepRuntime` for one entry. For a sync function none of its coroutines ever waits."""

    def __init__(self, run: _Run, stack: MiddlewareStack | None) -> None:
        self._run = run
        self._stack = stack
        self._counts: dict[str, int] = {}

    @property
    def app_id(self) -> str:
        """The app of the running function."""
        return self._run.fn.app_id

    async def entry(self, attempt: int) -> TransformOutputResult:
        """Call the function once."""
        fn = self._run.fn
        ctx = self._run.context(self, attempt)
        result = TransformOutputResult()
        if self._stack is not None:
            await self._stack.begin(ctx, fn, StepMemos())
        try:
            value = fn.handler(ctx)
            value = await value if inspect.isawaitable(value) else value
            result.output = _round_trip(value, fn.codec, None)
        except Exception as error:  # noqa: BLE001 - whatever user code raises is the run's outcome
            result.error = error
        return result if self._stack is None else await self._stack.finish(result)

    async def _step(self, step_id: str, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The step's recorded result, else its stub, else what `make` makes, recorded."""
        run = self._run
        if _IN_STEP.get():
            raise StepNestedError
        key = (step_id, self._counts.get(step_id, 0))
        self._counts[step_id] = key[1] + 1
        if key not in run.memo:
            try:
                stub = run.stubs.get(step_id)
                value = _stubbed(stub) if step_id in run.stubs else await make()
            except StepError as error:
                run.memo[key] = _raiser(error_payload(error), step_id)
            else:
                run.memo[key] = lambda: value
        return run.memo[key]()

    def _unstubbed(self, step_id: str, op: str) -> Callable[[], Coroutine[Any, Any, Any]]:
        async def fail() -> Any:
            self._run.unstubbed = UnstubbedStepError(step_id, op)
            raise self._run.unstubbed

        return fail

    async def run(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], output_type: Any
    ) -> Any:
        """Run a callback as a step, again until it succeeds or its attempts are used up."""
        fn = self._run.fn
        codec = codec_for(handler, output_type, fn.options.serializer or fn.client.serializer)

        async def attempts() -> Any:
            for attempt in range(fn.retries.attempts):
                result = await self._attempt(step_id, handler, args, attempt)
                if result.error is None:
                    return _round_trip(result.output, codec, step_id)
                if _final(result.error) or attempt + 1 == fn.retries.attempts:
                    raise from_payload(error_payload(result.error), step_id=step_id)
            raise AssertionError

        return await self._step(step_id, attempts)

    async def _attempt(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], attempt: int
    ) -> TransformOutputResult:
        info = TransformOutputStepInfo(step_id, Opcode.STEP_RUN)
        result = TransformOutputResult(step=info)
        if self._stack is not None:
            await self._stack.run("before_step", info)
        mark, number = _IN_STEP.set(True), STEP_ATTEMPT.set(attempt)
        try:
            result.output = await self._call(handler, args)
        except Exception as error:  # noqa: BLE001 - a step's error is decided on by the caller
            result.error = error
        finally:
            STEP_ATTEMPT.reset(number)
            _IN_STEP.reset(mark)
        if self._stack is not None:
            await self._stack.run("after_step", result)
            await self._stack.run("transform_output", result)
        return result

    async def _call(self, handler: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if not self._run.fn.is_handler_async:
            value = handler(*args)
            return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value
        if inspect.iscoroutinefunction(handler):
            return await handler(*args)
        value = await asyncio.to_thread(handler, *args)
        return await value if inspect.isawaitable(value) else value

    async def sleep(self, step_id: str, mode: str, ms: int) -> None:  # noqa: ARG002
        """Over at once."""
        await self._step(step_id, _nothing)

    async def wait(self, step_id: str, wait: Wait) -> Event | None:
        """Its stub."""
        check.declared(wait, self._run.fn)
        found = await self._step(step_id, self._unstubbed(step_id, "wait for an event"))
        if isinstance(found, Event) or found is None:
            return found
        raise ConfigError(
            f"step_stubs[{step_id!r}]: {found!r}; the result of a wait is an Event, None or Timeout"
        )

    async def wait_signal(self, step_id: str, wait: SignalWait) -> Any:  # noqa: ARG002
        """Its stub."""
        return await self._step(step_id, self._unstubbed(step_id, "wait for a signal"))

    async def invoke(self, step_id: str, invoke: Invoke) -> Any:  # noqa: ARG002
        """Its stub."""
        value = await self._step(step_id, self._unstubbed(step_id, "call of another function"))
        if value is None and self._run.stubs.get(step_id) is Timeout:
            raise StepError(INVOKE_TIMEOUT_MESSAGE, name=INVOKE_TIMEOUT_NAME, step_id=step_id)
        return value

    async def send_event(self, step_id: str, events: Sequence[Event]) -> list[str]:
        """Nothing is sent."""

        async def send() -> list[str]:
            encode_events(events, self._run.client.limits)
            return [_ID] * len(events)

        ids: list[str] = await self._step(step_id, send)
        return ids

    async def send_signal(self, step_id: str, signal: str, data: Any, hold_ms: int) -> str | None:  # noqa: ARG002
        """Nothing is sent, nobody waits."""
        receiver: str | None = await self._step(step_id, _nothing)
        return receiver

    async def parallel(
        self,
        callables: Sequence[Callable[[], Any]],
        mode: str,  # noqa: ARG002
    ) -> tuple[Any, ...]:
        """All branches; the first error in order once all have ended."""
        results = await asyncio.gather(*(call() for call in callables), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return tuple(results)

    async def race(self, callables: Sequence[Callable[[], Any]]) -> Any:
        """The first branch to end."""
        tasks = [asyncio.ensure_future(call()) for call in callables]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task.done()).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _SyncSteps:
    """`SyncStepRuntime`: the same steps; branches run one after another."""

    def __init__(self, steps: _Steps) -> None:
        self._steps = steps
        self.app_id = steps.app_id

    def run(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], output_type: Any
    ) -> Any:
        """As in `_Steps`."""
        return drive(self._steps.run(step_id, handler, args, output_type))

    def sleep(self, step_id: str, mode: str, ms: int) -> None:
        """As in `_Steps`."""
        drive(self._steps.sleep(step_id, mode, ms))

    def wait(self, step_id: str, wait: Wait) -> Event | None:
        """As in `_Steps`."""
        return drive(self._steps.wait(step_id, wait))

    def wait_signal(self, step_id: str, wait: SignalWait) -> Any:
        """As in `_Steps`."""
        return drive(self._steps.wait_signal(step_id, wait))

    def send_event(self, step_id: str, events: Sequence[Event]) -> list[str]:
        """As in `_Steps`."""
        return drive(self._steps.send_event(step_id, events))

    def send_signal(self, step_id: str, signal: str, data: Any, hold_ms: int) -> str | None:
        """As in `_Steps`."""
        return drive(self._steps.send_signal(step_id, signal, data, hold_ms))

    def invoke(self, step_id: str, invoke: Invoke) -> Any:
        """As in `_Steps`."""
        return drive(self._steps.invoke(step_id, invoke))

    def parallel(self, callables: Sequence[Callable[[], Any]], mode: str) -> tuple[Any, ...]:  # noqa: ARG002
        """All branches; the first error in order once all have ended."""
        results: list[Any] = []
        first: Exception | None = None
        for call in callables:
            try:
                results.append(call())
            except Exception as error:  # noqa: BLE001 - raised once the other branches have ended
                first = first or error
        if first is not None:
            raise first
        return tuple(results)

    def race(self, callables: Sequence[Callable[[], Any]]) -> Any:
        """The first branch, which nothing can overtake here."""
        return callables[0]()


def _stubbed(stub: object) -> Any:
    if isinstance(stub, Exception):
        raise stub if isinstance(stub, StepError) else from_payload(error_payload(stub))
    return None if stub is Timeout else stub


def _raiser(payload: Mapping[str, object], step_id: str) -> Callable[[], Any]:
    def fail() -> Any:
        raise from_payload(payload, step_id=step_id)

    return fail


def _round_trip(value: Any, codec: Codec | None, step_id: str | None) -> Any:
    """What replay would return: it must be the same here as in production."""
    try:
        plain = value if codec is None else codec.dump(value)
    except UnserializableError as error:
        raise OutputUnserializableError(error.path, error.reason, step_id) from error
    plain = unpack(pack_output(plain, step_id))
    return plain if codec is None else codec.load(plain)


async def _nothing() -> None:
    return None


async def _awaited(value: Any) -> Any:
    return await value
