"""The steps of one entry of a mocked run: each answers at once, from its stub or from its callback."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from stepwell import step_args as check
from stepwell.context import STEP_ATTEMPT
from stepwell.errors import (
    INVOKE_TIMEOUT_MESSAGE,
    INVOKE_TIMEOUT_NAME,
    ConfigError,
    StepError,
    StepNestedError,
    error_payload,
    from_payload,
)
from stepwell.events import Event, encode_events
from stepwell.middleware import (
    MiddlewareStack,
    Opcode,
    StepMemos,
    TransformOutputResult,
    TransformOutputStepInfo,
)
from stepwell.runtime import Invoke, SignalWait, Wait
from stepwell.serde.outputs import codec_for
from stepwell.testing.mocked.values import (
    ID,
    Timeout,
    UnstubbedStepError,
    is_final,
    raiser,
    round_trip,
    stubbed,
)

if TYPE_CHECKING:
    from stepwell.testing.mocked.run import MockedRun

_IN_STEP: ContextVar[bool] = ContextVar("stepwell_mocked_in_step", default=False)


class Steps:
    """`StepRuntime` for one entry. For a sync function none of its coroutines ever waits."""

    def __init__(self, run: "MockedRun", stack: MiddlewareStack | None) -> None:
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
            result.output = round_trip(value, fn.codec, None)
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
                value = stubbed(stub) if step_id in run.stubs else await make()
            except StepError as error:
                run.memo[key] = raiser(error_payload(error), step_id)
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
                    return round_trip(result.output, codec, step_id)
                if is_final(result.error) or attempt + 1 == fn.retries.attempts:
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
            return [ID] * len(events)

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


async def _nothing() -> None:
    return None


async def _awaited(value: Any) -> Any:
    return await value
