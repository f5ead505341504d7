"""The steps of an asynchronous entry: replayed from the record, executed and recorded, or parked until the server has their result."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import CodeType
from typing import Any

from stepwell.context import STEP_ATTEMPT
from stepwell.errors import SignalConflictError, StepwellError
from stepwell.events import Event
from stepwell.runtime import UNSET, Invoke, SignalWait, Wait
from stepwell.serde.values import pack, unpack
from stepwell_engine.store.transitions import Arg
from stepwell_workers import attempts, groups, memo, outgoing
from stepwell_workers.errors import StepTimeoutError
from stepwell_workers.hooks import Hooks
from stepwell_workers.ledger import Ledger
from stepwell_workers.memo import StepName

# Values of these types are the same before and after a round trip.
PLAIN = frozenset({type(None), bool, int, float, str, bytes})


def _is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: at once for plain functions, which nearly all are."""
    code: CodeType | None = getattr(handler, "__code__", None)
    if code is not None and code.co_flags & inspect.CO_COROUTINE:
        return True
    return inspect.iscoroutinefunction(handler)


class Steps(Ledger):
    """`StepRuntime` for one entry."""

    __slots__ = ()

    # --- step.run ---

    async def run(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], output_type: Any
    ) -> Any:
        """Run a callback as a step."""
        name, record = self.begin(step_id)
        if record is None:
            obstacle = self.obstacle(name)
            if obstacle is not None:
                record = await self._park(name, registered=obstacle)
        codec = self.entry.services.codec(self.entry.function, handler, output_type)
        if record is None and self.entry.function.distribute and not self.entry.target:
            self.candidates[name.key] = (name, step_id)
            record = await self._park(name)
        while record is None:
            try:
                value, record = await self._attempt(name, step_id, handler, args, codec)
            except Exception as error:  # noqa: BLE001 - a step's error is decided on, not handled
                record = await self._failed(name, step_id, error)
            else:
                await self.record(name, record)
                return value
        value = self.recall(name, record, unpack)
        return value if codec is None else codec.load(value)

    async def _attempt(
        self,
        name: StepName,
        step_id: str,
        handler: Callable[..., Any],
        args: tuple[Any, ...],
        codec: Any,
    ) -> tuple[Any, bytes]:
        """Call the callback once; returns what replay will return, and the record."""
        entry = self.entry
        services = entry.services
        if entry.suspect:
            await services.step_started(entry, step_id)
        made = memo.attempts_made(self.fields.get(name.attempts))
        started = services.clock.now_ms()
        if entry.hooks is not None:
            value = await self._hooked(entry.hooks, name, made, handler, args)
        elif _is_async(handler):
            # As `_guarded`, which would be one coroutine more for what nearly every step is.
            self._enter(name, made)
            try:
                value = await handler(*args)
            except (SystemExit, asyncio.CancelledError) as stop:
                fault = self._stopped(name, stop)
                if fault is None:
                    raise
                raise fault from fault.__cause__
            finally:
                self._leave(name)
        else:
            value = await self._guarded(name, made, handler, args)
        plain = value if codec is None else codec.dump(value)
        ended = services.clock.now_ms()
        record = memo.done("run", step_id, started, ended, made, plain)
        outgoing.check_output(entry, step_id, record)
        services.step_ended(entry, ended - started)
        if type(plain) in PLAIN:
            return (plain if codec is None else codec.load(plain)), record
        plain = unpack(record[1:])[5]
        return (plain if codec is None else codec.load(plain)), record

    async def _hooked(
        self,
        hooks: Hooks,
        name: StepName,
        attempt: int,
        handler: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> Any:
        """A callback between its middleware's hooks, which may change what it returned or raised."""
        await hooks.before_step(name.step_id)
        value, error = None, None
        try:
            value = await self._guarded(name, attempt, handler, args)
        except Exception as raised:  # noqa: BLE001 - the hooks see it, then it goes on
            error = raised
        result = await hooks.after_step(name.step_id, value, error)
        if result.error is not None:
            raise result.error
        return result.output

    async def _guarded(
        self, name: StepName, attempt: int, handler: Callable[..., Any], args: tuple[Any, ...]
    ) -> Any:
        """Call user code as a step: marked as such, watched by the step timeout."""
        self._enter(name, attempt)
        try:
            if _is_async(handler):
                return await handler(*args)
            value = await self.entry.services.threads.run(handler, *args)
            return await value if inspect.isawaitable(value) else value
        except (SystemExit, asyncio.CancelledError) as stop:
            fault = self._stopped(name, stop)
            if fault is None:
                raise
            raise fault from fault.__cause__
        finally:
            self._leave(name)

    def _enter(self, name: StepName, attempt: int) -> None:
        self.active[name.key] = (self.entry.services.monotonic(), self.joined())
        self.executing += 1
        STEP_ATTEMPT.set(attempt)

    def _leave(self, name: StepName) -> None:
        del self.active[name.key]
        self.executing -= 1
        # Steps don't nest, so it was None. (And no token: a coroutine that is destroyed leaves in a foreign context, where `reset` fails.)
        STEP_ATTEMPT.set(None)
        if self.parked and not self.entry.closing:
            self.entry.check_soon()

    def _stopped(self, name: StepName, stop: BaseException) -> StepwellError | None:
        """The error of a step that called exit, or took too long; None for any other cancellation."""
        if isinstance(stop, SystemExit):
            # In a task of its own it would end the worker.
            fault = StepwellError(f"the step called sys.exit({stop.code!r})")
            fault.__cause__ = stop
            return fault
        if name.key not in self.timed_out or self.entry.closing:
            return None
        self.timed_out.discard(name.key)
        self.active[name.key][1].uncancel()
        return StepTimeoutError(self.entry.function.step_timeout_ms)

    async def _failed(self, name: StepName, step_id: str, error: Exception) -> bytes | None:
        """An attempt failed: park until its retry is due, or record the failure. Returns the step's record, None = try again."""
        entry = self.entry
        now = entry.services.clock.now_ms()
        verdict = attempts.judge(
            error, self.fields.get(name.attempts), entry.function, entry.services.random, now
        )
        payload = verdict.payload
        blob = memo.add_attempt(
            self.fields.get(name.attempts), entry.services.worker_id, now, now, payload
        )
        self.fields[name.attempts] = blob
        entry.services.attempt_failed(entry, step_id, verdict, error)
        if verdict.delay_ms is None:
            record = memo.failed("run", step_id, now, now, memo.attempts_made(blob) - 1, payload)
            await self.record(name, record, blob)
            return record
        if entry.target:
            await self.retry_target(verdict.delay_ms, blob)
        described = memo.head("run", step_id, now, {})
        return await self._park(name, ("a", name.key, verdict.delay_ms, blob, described))

    # --- waiting steps ---

    async def _pending(self, name: StepName, ops: Callable[[], Awaitable[Sequence[Arg]]]) -> bytes:
        """Park a step that only the server can finish, registering it if it is not pending yet."""
        while True:
            record = await self._known(name)
            if record is None:
                registered = await ops()
                record = self.fields.get(name.record) or await self._park(name, registered)
            if record is not None:
                return record

    async def sleep(self, step_id: str, mode: str, ms: int) -> None:
        """Sleep for (mode d) or until (mode u) `ms`."""
        name, record = self.begin(step_id)

        async def ops() -> Sequence[Arg]:
            op = "sleep" if mode == "d" else "sleep_until"
            return (
                "z",
                name.key,
                mode,
                ms,
                memo.head(op, step_id, self.entry.services.clock.now_ms(), {"ms": ms}),
            )

        self.recall(name, record or await self._pending(name, ops), unpack)

    async def wait(self, step_id: str, wait: Wait) -> Event | None:
        """Wait for an event."""
        name, record = self.begin(step_id)

        async def ops() -> Sequence[Arg]:
            return outgoing.wait_ops(self.entry, name, step_id, wait)

        found: Event | None = self.recall(
            name, record or await self._pending(name, ops), memo.read_event
        )
        return found

    async def wait_signal(self, step_id: str, wait: SignalWait) -> Any:
        """Wait for a signal."""
        name, record = self.begin(step_id)

        async def ops() -> Sequence[Arg]:
            return await signal_ops(self, name, step_id, wait)

        return self.recall(name, record or await self._pending(name, ops), unpack)

    async def invoke(self, step_id: str, invoke: Invoke) -> Any:
        """Call another function and wait for its result."""
        name, record = self.begin(step_id)

        async def ops() -> Sequence[Arg]:
            return outgoing.invoke_ops(self.entry, name, step_id, invoke)

        value = self.recall(name, record or await self._pending(name, ops), unpack)
        codec = None
        if invoke.output_type is not UNSET:
            codec = self.entry.services.codec(self.entry.function, None, invoke.output_type)
        return value if codec is None else codec.load(value)

    # --- steps that send ---

    async def send_event(self, step_id: str, events: Sequence[Event]) -> list[str]:
        """Send events in the write that records the step."""
        name, record = self.begin(step_id)
        if record is None:
            record = await self._known(name)
        if record is None:
            record = await self.send_now(name, step_id, events)
        result: list[str] = self.recall(name, record, unpack)
        return result

    async def send_now(self, name: StepName, step_id: str, events: Sequence[Event]) -> bytes:
        """Send events and record the step that sends them, in one write."""
        hooks = self.entry.hooks
        if hooks is not None:
            events = await hooks.before_send(events)
        ids, args = outgoing.event_args(self.entry, name, events)
        now = self.entry.services.clock.now_ms()
        record = memo.done("send_event", step_id, now, now, 0, ids)
        try:
            await self.record(name, record, b"", args)
        except Exception as error:
            if hooks is not None:
                await hooks.after_send([], error)
            raise
        if hooks is not None:
            await hooks.after_send(ids)
        return record

    async def send_signal(self, step_id: str, signal: str, data: Any, hold_ms: int) -> str | None:
        """Send a signal as a step."""
        value = pack(data, where="data")
        await self.flush()

        async def send() -> str | None:
            return await self.entry.services.send_signal(signal, value, hold_ms)

        result: str | None = await self.run(step_id, send, (), UNSET)
        return result

    # --- branches ---

    async def parallel(self, callables: Sequence[Callable[[], Any]], mode: str) -> tuple[Any, ...]:
        """Run branches concurrently; all results in order."""
        self.mode = mode
        return await groups.parallel(callables)

    async def race(self, callables: Sequence[Callable[[], Any]]) -> Any:
        """Run branches concurrently; the first result."""
        return await groups.race(self, callables)


async def signal_ops(steps: Steps, name: StepName, step_id: str, wait: SignalWait) -> Sequence[Arg]:
    """Reserve a signal's name, then give the wait's registration; in conflict, or with a signal held, the step is recorded at once."""
    await steps.confirm()
    now = steps.entry.services.clock.now_ms()
    taken, held = await steps.entry.services.reserve_signal(steps.entry, name, wait)
    if not taken:
        error = attempts.payload(SignalConflictError(wait.signal))
        await steps.record(name, memo.failed("signal", step_id, now, now, 0, error))
        return ()
    if held is not None:
        # The reservation has delivered it to the run's hash already.
        found = await steps.entry.services.read_fields(
            steps.entry.shard, steps.entry.run_id, [name.record]
        )
        if found[0] is not None:
            steps.fields[name.record] = found[0]
        return ()
    return (
        "g",
        name.key,
        wait.timeout_ms,
        memo.head("signal", step_id, now, {"signal": wait.signal}),
    )
