"""Synchronous functions: the handler and its steps run on one thread of the worker's pool, and one hop to the loop records a step.

A step that cannot finish raises `Suspend` (a BaseException) in the handler's thread; what it waits for is registered with the commit
that parks the run. A handler that swallows it is failed, with advice.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from stepwell.context import STEP_ATTEMPT, Context, ContextSync
from stepwell.control import Suspend
from stepwell.events import Event
from stepwell.group import GroupSync
from stepwell.middleware import drive
from stepwell.runtime import UNSET, Invoke, SignalWait, Wait
from stepwell.serde.values import pack, unpack
from stepwell.step import StepSync
from stepwell_workers import attempts, memo, outgoing
from stepwell_workers.entry import SUSPEND, YIELD, Entry
from stepwell_workers.groups import RACE
from stepwell_workers.ledger import BRANCH, Branch
from stepwell_workers.memo import StepName
from stepwell_workers.steps import PLAIN, signal_ops

if TYPE_CHECKING:
    from stepwell_engine.store.transitions import Arg


class SyncEntry(Entry):
    """An entry whose handler runs on a thread."""

    async def _call(self, ctx: Context) -> Any:
        runtime = SyncSteps(self, asyncio.get_running_loop())
        sync_ctx = ContextSync(
            event=ctx.event,
            events=ctx.events,
            run_id=ctx.run_id,
            entry_attempt=ctx.entry_attempt,
            max_attempts=ctx.max_attempts,
            function_id=ctx.function_id,
            fn_id=ctx.fn_id,
            app_id=ctx.app_id,
            logger=ctx.logger,
            step=StepSync(runtime),
            group=GroupSync(runtime),
        )
        # What middleware attached to the context goes along.
        for name in vars(ctx).keys() - vars(sync_ctx).keys():
            setattr(sync_ctx, name, getattr(ctx, name))
        try:
            return await self.services.threads.run(self.function.handler, sync_ctx)
        except Suspend:
            if not self.closing:
                self.closing = YIELD if self.steps.yielding else SUSPEND
                self.why = self.steps.yielding
            raise asyncio.CancelledError from None
        finally:
            if runtime.suspended and not self.closing:
                # It ended otherwise although a step had suspended it.
                self.closing = SUSPEND


class SyncSteps:
    """`SyncStepRuntime`: the calls arrive on the handler's threads; the run's state is guarded by one lock."""

    def __init__(self, entry: SyncEntry, loop: asyncio.AbstractEventLoop) -> None:
        self.entry = entry
        self.steps = entry.steps
        self.suspended = False
        self._loop = loop
        self._lock = threading.Lock()

    @property
    def app_id(self) -> str:
        """The app of the running function."""
        return self.entry.function.app_id

    def _await(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """One hop to the loop and back."""
        try:
            return asyncio.run_coroutine_threadsafe(coro, self._loop).result()
        except (asyncio.CancelledError, RuntimeError):
            if not self.entry.closing and self._loop.is_running():
                raise
            raise Suspend from None

    def _begin(self, step_id: str) -> tuple[StepName, bytes | None]:
        with self._lock:
            try:
                return self.steps.begin(step_id)
            except asyncio.CancelledError:
                raise Suspend from None

    def _park(self, name: StepName, ops: "Sequence[Arg]" = ()) -> Suspend:
        """Register what a step waits for, and the exception that unwinds the handler."""
        with self._lock:
            self.steps.last_parked = name.step_id
            branch = BRANCH.get()
            if branch is not None:
                branch.parked.append(name)
            self.entry.journal.held.extend(ops)
            self.suspended = True
        return Suspend()

    def _may_execute(self, name: StepName) -> None:
        """Raise `Suspend` unless this unrecorded step is to be executed or registered now."""
        if self.steps.obstacle(name) is not None:
            raise self._park(name)

    # --- step.run ---

    def run(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], output_type: Any
    ) -> Any:
        """Run a callback as a step, on this thread."""
        name, record = self._begin(step_id)
        codec = self.entry.services.codec(self.entry.function, handler, output_type)
        if record is None:
            self._may_execute(name)
            branch = BRANCH.get()
            if self.entry.function.distribute and not self.entry.target and branch is not None:
                described = memo.head("run", step_id, self.entry.services.clock.now_ms(), {})
                raise self._park(name, ("p", name.key, described))
            self._executing(name, 1)
            try:
                value, record = self._attempt(name, step_id, handler, args, codec)
            except Exception as error:  # noqa: BLE001 - a step's error is decided on, not handled
                record = self._failed(name, step_id, error)
            else:
                self._await(self.steps.record(name, record))
                return value
            finally:
                self._executing(name, -1)
        value = self.steps.recall(name, record, unpack)
        return value if codec is None else codec.load(value)

    def _executing(self, name: StepName, change: int) -> None:
        """A drain lets an entry be while a step of it is executed, its record included; the step timeout watches it."""
        entry = self.entry
        with self._lock:
            self.steps.executing += change
            if change > 0 and entry.root is not None:
                self.steps.active[name.key] = (entry.services.monotonic(), entry.root)
            else:
                self.steps.active.pop(name.key, None)

    def _attempt(
        self,
        name: StepName,
        step_id: str,
        handler: Callable[..., Any],
        args: tuple[Any, ...],
        codec: Any,
    ) -> tuple[Any, bytes]:
        entry = self.entry
        if entry.suspect:
            self._await(entry.services.step_started(entry, step_id))
        made = memo.attempts_made(self.steps.fields.get(name.attempts))
        started = entry.services.clock.now_ms()
        value = self._hooked(name, made, handler, args)
        plain = value if codec is None else codec.dump(value)
        ended = entry.services.clock.now_ms()
        record = memo.done("run", step_id, started, ended, made, plain)
        outgoing.check_output(entry, step_id, record)
        entry.services.step_ended(entry, ended - started)
        if type(plain) not in PLAIN:
            plain = unpack(record[1:])[5]
        return (plain if codec is None else codec.load(plain)), record

    def _hooked(
        self, name: StepName, attempt: int, handler: Callable[..., Any], args: tuple[Any, ...]
    ) -> Any:
        hooks = self.entry.hooks
        if hooks is None:
            return self._guarded(attempt, handler, args)
        drive(hooks.before_step(name.step_id))
        value, error = None, None
        try:
            value = self._guarded(attempt, handler, args)
        except Exception as raised:  # noqa: BLE001 - the hooks see it, then it goes on
            error = raised
        result = drive(hooks.after_step(name.step_id, value, error))
        if result.error is not None:
            raise result.error
        return result.output

    def _guarded(self, attempt: int, handler: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        number = STEP_ATTEMPT.set(attempt)
        try:
            value = handler(*args)
            return self._await(_awaited(value)) if inspect.isawaitable(value) else value
        finally:
            STEP_ATTEMPT.reset(number)

    def _failed(self, name: StepName, step_id: str, error: Exception) -> bytes:
        entry = self.entry
        now = entry.services.clock.now_ms()
        before = self.steps.fields.get(name.attempts)
        verdict = attempts.judge(error, before, entry.function, entry.services.random, now)
        blob = memo.add_attempt(before, entry.services.worker_id, now, now, verdict.payload)
        entry.services.attempt_failed(entry, step_id, verdict, error)
        if verdict.delay_ms is None:
            record = memo.failed(
                "run", step_id, now, now, memo.attempts_made(blob) - 1, verdict.payload
            )
            self._await(self.steps.record(name, record, blob))
            return record
        if entry.target:
            self._await(self.steps.retry_target(verdict.delay_ms, blob))
        raise self._park(
            name, ("a", name.key, verdict.delay_ms, blob, memo.head("run", step_id, now, {}))
        )

    # --- the other steps ---

    def _pending(
        self,
        step_id: str,
        ops: "Callable[[StepName], Sequence[Arg]]",
        decode: Callable[[bytes], Any],
    ) -> Any:
        name, record = self._begin(step_id)
        if record is None:
            self._may_execute(name)
            registration = ops(name)
            record = self.steps.fields.get(name.record)
            if record is None:
                raise self._park(name, registration)
        return self.steps.recall(name, record, decode)

    def sleep(self, step_id: str, mode: str, ms: int) -> None:
        """Sleep for (mode d) or until (mode u) `ms`."""
        op = "sleep" if mode == "d" else "sleep_until"
        described = memo.head(op, step_id, self.entry.services.clock.now_ms(), {"ms": ms})
        self._pending(step_id, lambda name: ("z", name.key, mode, ms, described), unpack)

    def wait(self, step_id: str, wait: Wait) -> Event | None:
        """Wait for an event."""
        found: Event | None = self._pending(
            step_id,
            lambda name: outgoing.wait_ops(self.entry, name, step_id, wait),
            memo.read_event,
        )
        return found

    def wait_signal(self, step_id: str, wait: SignalWait) -> Any:
        """Wait for a signal."""
        return self._pending(
            step_id, lambda name: self._await(signal_ops(self.steps, name, step_id, wait)), unpack
        )

    def invoke(self, step_id: str, invoke: Invoke) -> Any:
        """Call another function and wait for its result."""
        value = self._pending(
            step_id, lambda name: outgoing.invoke_ops(self.entry, name, step_id, invoke), unpack
        )
        codec = None
        if invoke.output_type is not UNSET:
            codec = self.entry.services.codec(self.entry.function, None, invoke.output_type)
        return value if codec is None else codec.load(value)

    def send_event(self, step_id: str, events: Sequence[Event]) -> list[str]:
        """Send events in the write that records the step."""
        name, record = self._begin(step_id)
        if record is None:
            self._may_execute(name)
            record = self._await(self.steps.send_now(name, step_id, events))
        result: list[str] = self.steps.recall(name, record, unpack)
        return result

    def send_signal(self, step_id: str, signal: str, data: Any, hold_ms: int) -> str | None:
        """Send a signal as a step."""
        value = pack(data, where="data")
        if self.steps.buffer:
            self._await(self.steps.flush())

        def send() -> str | None:
            result: str | None = self._await(
                self.entry.services.send_signal(signal, value, hold_ms)
            )
            return result

        sent: str | None = self.run(step_id, send, (), UNSET)
        return sent

    # --- branches ---

    def parallel(self, callables: Sequence[Callable[[], Any]], mode: str) -> tuple[Any, ...]:
        """Each branch on a thread of its own; all results in order."""
        self.steps.mode = mode
        results = _Results(len(callables))
        threads = [
            self._branch(call, Branch(), results, index) for index, call in enumerate(callables)
        ]
        for thread in threads:
            thread.join()
        for _, error in results.rows:
            if isinstance(error, Suspend):
                raise error
        for _, error in results.rows:
            if error is not None:
                raise error
        return tuple(value for value, _ in results.rows)

    def race(self, callables: Sequence[Callable[[], Any]]) -> Any:
        """The first result; a loser stops at its next step, for a thread can't be interrupted."""
        name, record = self._begin(RACE)
        winner: int | None = None if record is None else memo.read(record, RACE, unpack)
        branches = [Branch() for _ in callables]
        results = _Results(len(callables))
        for index, (branch, call) in enumerate(zip(branches, callables, strict=True)):
            branch.lost = winner is not None and index != winner
            self._branch(call, branch, results, index)
        first = results.first(winner)
        if first is None:
            raise self._park(name)
        if winner is None:
            losing: list[StepName] = []
            for index, branch in enumerate(branches):
                if index != first:
                    branch.lost = True
                    losing += branch.parked
            now = self.entry.services.clock.now_ms()
            self._await(
                self.steps.record_race(name, memo.done("race", RACE, now, now, 0, first), losing)
            )
        # The losers parked, and nobody waits for them any more.
        self.suspended = False
        value, error = results.rows[first]
        if error is not None:
            raise error
        return value

    def _branch(
        self, call: Callable[[], Any], branch: Branch, results: "_Results", index: int
    ) -> threading.Thread:
        context = copy_context()

        def work() -> None:
            BRANCH.set(branch)
            try:
                results.put(index, call(), None)
            except BaseException as error:  # noqa: BLE001 - raised again by who waits for the branch
                results.put(index, None, error)

        thread = threading.Thread(
            target=context.run, args=(work,), name=f"stepwell-branch-{index}", daemon=True
        )
        thread.start()
        return thread


class _Results:
    """What branches returned, in order of index, and who was first."""

    def __init__(self, count: int) -> None:
        self.rows: list[tuple[Any, BaseException | None]] = [(None, None)] * count
        self._order: list[int] = []
        self._arrived = threading.Condition()

    def put(self, index: int, value: Any, error: BaseException | None) -> None:
        with self._arrived:
            self.rows[index] = (value, error)
            self._order.append(index)
            self._arrived.notify_all()

    def first(self, wanted: int | None) -> int | None:
        """Wait for the first branch (or the one `wanted`) that ended otherwise than by suspending; None when all suspended."""
        with self._arrived:
            while True:
                for index in self._order:
                    suspended = isinstance(self.rows[index][1], Suspend)
                    if not suspended and wanted in (None, index):
                        return index
                if len(self._order) == len(self.rows):
                    return None
                self._arrived.wait()


async def _awaited(value: Any) -> Any:
    return await value
