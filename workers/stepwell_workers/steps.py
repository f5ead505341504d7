"""The steps of an asynchronous entry: replayed from the record, executed and recorded, or parked until the server has their result."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from stepwell import ids
from stepwell.context import STEP_ATTEMPT
from stepwell.errors import SignalConflictError, StepNestedError, StepwellError
from stepwell.events import Event, decode_event
from stepwell.runtime import UNSET, Invoke, SignalWait, Wait
from stepwell.serde.values import pack, unpack
from stepwell_engine.store.transitions import Arg
from stepwell_workers import attempts, groups, memo, outgoing
from stepwell_workers.errors import StepTimeoutError
from stepwell_workers.hooks import Hooks
from stepwell_workers.journal import GOES_ON
from stepwell_workers.memo import StepName
from stepwell_workers.parking import IN_STEP

if TYPE_CHECKING:
    from stepwell_workers.entry import Entry

# Values of these types are the same before and after a round trip.
PLAIN = frozenset({type(None), bool, int, float, str, bytes})
BRANCH: ContextVar["groups.Branch | None"] = ContextVar("stepwell_branch", default=None)


class Parked:
    """A step that cannot finish now. `registered` once the server is known to hold its pending record."""

    __slots__ = ("future", "name", "registered")

    def __init__(self, name: StepName, future: "asyncio.Future[Any]", registered: bool) -> None:
        self.name = name
        self.future = future
        self.registered = registered


class Steps:
    """`StepRuntime` for one entry. A woken step gets its record, or None when it must be executed (its retry is due)."""

    __slots__ = (
        "active",
        "buffer",
        "buffer_since",
        "buffered",
        "candidates",
        "counts",
        "entry",
        "executing",
        "fields",
        "journal",
        "last_parked",
        "mode",
        "parked",
        "recorded",
        "timed_out",
        "unseen",
        "yielding",
    )

    def __init__(self, entry: "Entry") -> None:
        self.entry = entry
        self.fields = entry.fields
        self.journal = entry.journal
        self.counts: dict[str, int] = {}
        self.parked: dict[str, Parked] = {}
        self.candidates: dict[str, tuple[StepName, str]] = {}
        self.executing = 0
        self.active: dict[str, tuple[float, asyncio.Task[Any]]] = {}
        self.timed_out: set[str] = set()
        self.yielding = ""
        self.last_parked = ""
        self.mode = "race"
        self.buffer: list[Arg] = []
        self.buffered = 0
        self.buffer_since = 0.0
        first = b"sa" not in self.fields
        self.recorded = 0 if first else memo.count_records(self.fields)
        self.unseen = self.recorded
        # A record that arrived early (a signal) has no replay to wait for, so the count is only a hint for the logger.

    @property
    def app_id(self) -> str:
        """The app of the running function."""
        return self.entry.function.app_id

    @property
    def replaying(self) -> bool:
        """True until the last recorded step was asked for."""
        return self.unseen > 0

    # --- identity and memory ---

    def begin(self, step_id: str) -> tuple[StepName, bytes | None]:
        """Identify a step call; returns its name and its record, if it has one."""
        if type(step_id) is not str or not step_id or len(step_id) > 255:
            outgoing.bad_step_id(step_id)
        if IN_STEP.get():
            raise StepNestedError
        index = self.counts.get(step_id, 0)
        self.counts[step_id] = index + 1
        name = memo.step_name(step_id, index)
        record = self.fields.get(name.record)
        hooks = self.entry.hooks
        if hooks is not None and not self.entry.target:
            record = hooks.recorded(name, record)
        if record is not None:
            if self.unseen:
                self.unseen -= 1
            return name, record
        self.unseen = 0
        if self.entry.closing:
            raise asyncio.CancelledError
        return name, None

    def obstacle(self, name: StepName) -> bool | None:
        """Why an unrecorded step may not run now: True = the server has it pending, False = it is not for this entry; None = it may.

        Another item's step (target and distribute mode), a race's loser, an entry that should stop.
        """
        entry = self.entry
        if name.pending in self.fields and name.key != entry.target:
            return True
        if entry.target:
            return None if name.key == entry.target else False
        branch = BRANCH.get()
        if branch is not None and branch.lost:
            return False
        reason = entry.services.stop_reason(entry)
        if reason:
            self.yielding = reason
            return False
        return None

    async def _known(self, name: StepName) -> bytes | None:
        """The record of an unrecorded step once it has one; None when it is to be executed now."""
        obstacle = self.obstacle(name)
        return None if obstacle is None else await self._park(name, registered=obstacle)

    # --- parking ---

    async def _park(
        self, name: StepName, ops: Sequence[Arg] = (), *, registered: bool = False
    ) -> bytes | None:
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.parked[name.key] = Parked(name, future, registered)
        self.last_parked = name.step_id
        self.journal.held.extend(ops)
        branch = BRANCH.get()
        if branch is not None:
            branch.parked.append(name)
        self.entry.check_soon()
        try:
            return await future
        finally:
            self.parked.pop(name.key, None)

    def futures(self) -> set["asyncio.Future[Any]"]:
        """What the parked steps wait on."""
        return {p.future for p in self.parked.values()}

    def registered(self) -> list[StepName]:
        """The parked steps whose pending record the server holds."""
        return [p.name for p in self.parked.values() if p.registered]

    def wake(self, name: StepName, record: bytes | None) -> None:
        """Let a parked step go on with its record, or (None) execute it."""
        parked = self.parked.get(name.key)
        self.fields.pop(name.pending, None)
        if record is not None:
            self.fields[name.record] = record
        if parked is not None and not parked.future.done():
            parked.future.set_result(record)

    async def flush_held(self) -> None:
        """Write timers and waits of parked steps now, because other branches go on."""
        waiting = [p for p in self.parked.values() if not p.registered]
        if not self.journal.held:
            return
        self.goes_on(await self.journal.go_on(self.take_buffer()))
        for parked in waiting:
            parked.registered = True

    def plan_or_execute(self) -> None:
        """All branches wait: a lone step is executed here, several become queue items of their own."""
        found, self.candidates = self.candidates, {}
        planned = any(k[:2] == b"p:" and v[1:3] == b"\xa1P" for k, v in self.fields.items())
        if len(found) == 1 and not planned:
            for name, _ in found.values():
                self.wake(name, None)
            return
        self.journal.held += ("m", self.mode[0])
        for name, step_id in found.values():
            described = memo.head("run", step_id, self.entry.services.clock.now_ms(), {})
            self.journal.held += ("p", name.key, described)
        self.entry.check_soon()

    # --- recording ---

    def goes_on(self, code: str) -> None:
        """Act on a commit's reply: a fenced or cancelled entry stops here."""
        if code in GOES_ON:
            return
        if code == "CANCEL":
            self.entry.close("cancel")
        else:
            self.entry.services.lost(self.entry)
            self.entry.close("lost")
        raise asyncio.CancelledError

    def take_buffer(self) -> list[Arg]:
        """The operations not yet sent."""
        buffer, self.buffer, self.buffered = self.buffer, [], 0
        return buffer

    async def record(
        self, name: StepName, record: bytes, attempts_blob: bytes = b"", events: Sequence[Arg] = ()
    ) -> None:
        """Record a finished step; durable when this returns, unless the function buffers its checkpoints."""
        self.recorded += 1
        self.fields[name.record] = record
        outgoing.check_state(self.entry, record)
        entry = self.entry
        buffering = entry.checkpointing.buffered_steps > 1
        if not (entry.target or buffering or events or attempts_blob or self.journal.held):
            return self.goes_on(await self.journal.record(name.key, record))
        ops: tuple[Arg, ...] = ("d", name.key, record, attempts_blob, len(events) // 5, *events)
        if entry.target:
            return await self._record_target(ops)
        if buffering and not events and not entry.suspect:
            self.buffer += ops
            self.buffered += 1
            full = self.buffered >= entry.checkpointing.buffered_steps
            if not full and not outgoing.flush_due(entry, self):
                return None
            ops = ()
        return self.goes_on(await self.journal.go_on((*self.take_buffer(), *ops)))

    async def record_race(self, name: StepName, record: bytes, losing: Sequence[StepName]) -> None:
        """Record who won a race, and remove what its losers wait for."""
        self.fields[name.record] = record
        ops: list[Arg] = ["d", name.key, record, b"", 0]
        for loser in losing:
            ops += ("x", loser.key)
        self.goes_on(await self.journal.go_on((*self.take_buffer(), *ops)))

    async def _record_target(self, ops: tuple[Arg, ...]) -> None:
        """A planned step is done, and with it its item: the root goes on elsewhere."""
        code = await self.journal.commit(("D",), ops)
        if code in GOES_ON:
            self.entry.services.ended(self.entry, None)
            self.entry.close("done")
            raise asyncio.CancelledError
        self.goes_on(code)

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

    def recall(self, name: StepName, record: bytes, decode: Callable[[bytes], Any]) -> Any:
        """The value of a recorded step, as the middleware may have changed it; raises its `StepError`."""
        hooks = self.entry.hooks
        changed = None if hooks is None else hooks.changed(name)
        if changed is None:
            return memo.read(record, name.step_id, decode)
        if changed.error is not None:
            raise memo.step_error(changed.error, name.step_id)
        return changed.data

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
        if entry.hooks is None:
            value = await self._guarded(name, made, handler, args)
        else:
            value = await self._hooked(entry.hooks, name, made, handler, args)
        plain = value if codec is None else codec.dump(value)
        record = memo.done("run", step_id, started, services.clock.now_ms(), made, plain)
        outgoing.check_output(entry, step_id, record)
        services.step_ended(entry, started)
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
        entry = self.entry
        # Asking the loop costs a tenth of a short step; with no other tasks it can only be the root.
        task = asyncio.current_task() if entry.tasks else entry.root
        assert task is not None
        mark = IN_STEP.set(True)
        number = STEP_ATTEMPT.set(attempt)
        self.executing += 1
        self.active[name.key] = (entry.services.monotonic(), task)
        try:
            if inspect.iscoroutinefunction(handler):
                return await handler(*args)
            value = await self.entry.services.threads.run(handler, *args)
            return await value if inspect.isawaitable(value) else value
        except SystemExit as exit_:
            # In a task of its own it would end the worker.
            raise StepwellError(f"the step called sys.exit({exit_.code!r})") from exit_
        except asyncio.CancelledError:
            if name.key in self.timed_out and not self.entry.closing:
                self.timed_out.discard(name.key)
                task.uncancel()
                raise StepTimeoutError(self.entry.function.step_timeout_ms) from None
            raise
        finally:
            del self.active[name.key]
            self.executing -= 1
            STEP_ATTEMPT.reset(number)
            IN_STEP.reset(mark)
            if self.parked:
                self.entry.check_soon()

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

    async def retry_target(self, delay_ms: int, blob: bytes) -> None:
        """A planned step failed and has attempts left: its item goes back into the queue, later."""
        self.goes_on(await self.journal.commit(("R", delay_ms, blob)))
        self.entry.services.ended(self.entry, None)
        self.entry.close("done")
        raise asyncio.CancelledError

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
            name, record or await self._pending(name, ops), read_event
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
        finally:
            if hooks is not None:
                await hooks.after_send(ids)
        return record

    async def send_signal(self, step_id: str, signal: str, data: Any, hold_ms: int) -> str | None:
        """Send a signal as a step."""
        value = pack(data, where="data")

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


def read_event(blob: bytes) -> Event:
    event_id = blob[:26].decode()
    return decode_event(blob[26:], event_id, ids.ulid_ms(event_id))


async def signal_ops(steps: Steps, name: StepName, step_id: str, wait: SignalWait) -> Sequence[Arg]:
    """Reserve a signal's name, then give the wait's registration; in conflict, or with a signal held, the step is recorded at once."""
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
