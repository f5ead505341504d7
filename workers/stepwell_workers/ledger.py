"""What an entry knows of its run's steps: who they are, what is recorded, what is parked, and how a result gets into the record."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from stepwell.context import STEP_ATTEMPT
from stepwell.errors import StepNestedError
from stepwell_engine.store.transitions import Arg
from stepwell_workers import memo, outgoing
from stepwell_workers.journal import GOES_ON
from stepwell_workers.memo import StepName

if TYPE_CHECKING:
    from stepwell_workers.entry import Entry


class Branch:
    """One racer: the steps it parked, and whether it has lost."""

    __slots__ = ("lost", "parked")

    def __init__(self) -> None:
        self.lost = False
        self.parked: list[StepName] = []


BRANCH: ContextVar[Branch | None] = ContextVar("stepwell_branch", default=None)


class Parked:
    """A step that cannot finish now. `registered` once the server is known to hold its pending record."""

    __slots__ = ("future", "name", "registered")

    def __init__(self, name: StepName, future: "asyncio.Future[Any]", registered: bool) -> None:
        self.name = name
        self.future = future
        self.registered = registered


class Ledger:
    """The steps of one entry as far as they are known.

    A woken step gets its record, or None when it must be executed (its retry is due).
    """

    __slots__ = (
        "abandoned",
        "active",
        "buffer",
        "buffered",
        "candidates",
        "counts",
        "entry",
        "executing",
        "fields",
        "journal",
        "last_parked",
        "loop",
        "mode",
        "parked",
        "recorded",
        "registering",
        "size",
        "tasks",
        "timed_out",
        "timer",
        "unseen",
        "yielding",
    )

    def __init__(self, entry: "Entry") -> None:
        self.entry = entry
        self.fields = entry.fields
        self.journal = entry.journal
        self.loop = asyncio.get_running_loop()
        self.counts: dict[str, int] = {}
        self.parked: dict[str, Parked] = {}
        self.registering: list[Parked] = []
        self.candidates: dict[str, tuple[StepName, str]] = {}
        self.executing = 0
        self.tasks: set[asyncio.Task[Any]] = set()
        self.abandoned = False
        self.active: dict[str, tuple[float, asyncio.Task[Any]]] = {}
        self.timed_out: set[str] = set()
        self.yielding = ""
        self.last_parked = ""
        self.mode = "race"
        self.buffer: list[Arg] = []
        self.buffered = 0
        self.timer: asyncio.TimerHandle | None = None
        first = b"sa" not in self.fields
        self.recorded = 0 if first else memo.count_records(self.fields)
        self.unseen = self.recorded
        self.size = 0 if first else int(self.fields.get(b"sz") or 0)
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
        if STEP_ATTEMPT.get() is not None:
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
        if self.entry.closing or self.abandoned:
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
        self.joined()
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.parked[name.key] = parked = Parked(name, future, registered)
        self.last_parked = name.step_id
        if ops:
            self.journal.held.extend(ops)
            self.registering.append(parked)
        branch = BRANCH.get()
        if branch is not None:
            branch.parked.append(name)
        self.entry.check_soon()
        try:
            return await future
        finally:
            self.parked.pop(name.key, None)

    def joined(self) -> "asyncio.Task[Any]":
        """The task of this step call, noted: the run is at rest only when each task that ever called a step is."""
        task = asyncio.current_task(self.loop)
        assert task is not None
        if task is not self.entry.root:
            self.tasks.add(task)
        return task

    def abandon(self) -> None:
        """The pass is over: what is parked will not be woken, and no step of it runs any more."""
        self.abandoned = True
        for parked in list(self.parked.values()):
            parked.future.cancel()

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
        if self.journal.held:
            await self._write()

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
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        buffer, self.buffer, self.buffered = self.buffer, [], 0
        return buffer

    async def _write(self, ops: Sequence[Arg] = ()) -> None:
        """Commit what is buffered, what is held, and `ops`; the entry goes on."""
        registering, self.registering = self.registering, []
        self.goes_on(await self.journal.go_on((*self.take_buffer(), *ops)))
        for parked in registering:
            parked.registered = True

    async def flush(self) -> None:
        """Make the buffered steps durable: before others can see what came after them."""
        if self.buffer:
            await self._write()

    async def confirm(self) -> None:
        """As `flush`, and know that the lease holds: before a write elsewhere, which no token fences."""
        await self._write()

    def _buffer(self, ops: Sequence[Arg]) -> bool:
        """Keep a finished step for a later write; True when it is time for that."""
        settings = self.entry.checkpointing
        self.buffer += ops
        self.buffered += 1
        if self.buffered >= settings.buffered_steps:
            return True
        if self.timer is None and settings.max_interval_ms is not None:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_later(settings.max_interval_ms / 1000, self._waited)
        return False

    def _waited(self) -> None:
        """A buffered step has waited for `max_interval`."""
        self.timer = None
        if not self.entry.closing:  # else the last commit takes the buffer along
            self.entry.services.spawn(self.flush())

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
            dv = await self.journal.record(name.key, record)
            if dv == b"0" and not self.journal.dv:
                return None  # nothing came from outside, as for nearly every step
            return self.goes_on(await self.journal.recorded(dv, name.key, record))
        ops: tuple[Arg, ...] = ("d", name.key, record, attempts_blob, len(events) // 5, *events)
        if entry.target:
            return await self._record_target(ops)
        if buffering and not (events or attempts_blob or entry.suspect):
            if self._buffer(ops):
                await self._write()
            return None
        return await self._write(ops)

    async def record_race(self, name: StepName, record: bytes, losing: Sequence[StepName]) -> None:
        """Record who won a race, and remove what its losers wait for."""
        self.fields[name.record] = record
        ops: list[Arg] = ["d", name.key, record, b"", 0]
        for loser in losing:
            ops += ("x", loser.key)
        await self._write(ops)

    async def _record_target(self, ops: tuple[Arg, ...]) -> None:
        """A planned step is done, and with it its item: the root goes on elsewhere."""
        code = await self.journal.commit(("D",), ops)
        if code in GOES_ON:
            self.entry.services.ended(self.entry, None)
            self.entry.close("done")
            raise asyncio.CancelledError
        self.goes_on(code)

    def recall(self, name: StepName, record: bytes, decode: Callable[[bytes], Any]) -> Any:
        """The value of a recorded step, as the middleware may have changed it; raises its `StepError`."""
        hooks = self.entry.hooks
        changed = None if hooks is None else hooks.changed(name)
        if changed is None:
            return memo.read(record, name.step_id, decode)
        if changed.error is not None:
            raise memo.step_error(changed.error, name.step_id)
        return changed.data

    async def retry_target(self, delay_ms: int, blob: bytes) -> None:
        """A planned step failed and has attempts left: its item goes back into the queue, later."""
        self.goes_on(await self.journal.commit(("R", delay_ms, blob)))
        self.entry.services.ended(self.entry, None)
        self.entry.close("done")
        raise asyncio.CancelledError
