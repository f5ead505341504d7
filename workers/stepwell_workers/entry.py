"""One entry of a run: the function is called from its top, recorded steps answer at once, new ones run and are recorded.

An entry ends when the function returns or raises (outcome.py), or when nothing can go on (parking.py): then its coroutine is closed once,
from the root, and the run is parked in the server. Closing comes first and the commit second, so that a `finally` of the user's never
runs beside the next entry, and a swallowed suspension is seen while the lease still allows to fail the run for it.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from stepwell.context import Context
from stepwell.errors import SuspendSwallowedError
from stepwell.events import Event
from stepwell.function import Function
from stepwell.group import Group
from stepwell.step import Step
from stepwell_engine.store.transitions import Leased, Transitions
from stepwell_workers import memo, outcome
from stepwell_workers.hooks import Hooks
from stepwell_workers.journal import GOES_ON, Journal
from stepwell_workers.memo import attempts_made
from stepwell_workers.parking import OWNER, quiescent, waits_on
from stepwell_workers.replay import ReplayLogger
from stepwell_workers.steps import Steps

if TYPE_CHECKING:
    from stepwell_workers.services import Services

# Why an entry is being closed.
SUSPEND, CANCEL, LOST, YIELD, DONE = "suspend", "cancel", "lost", "yield", "done"


class Entry:
    """One leased item, from lease to release. The owner of the run's state while it is in this process."""

    def __init__(
        self, services: "Services", shard: Transitions, function: Function[Any], leased: Leased
    ) -> None:
        self.services = services
        self.shard = shard
        self.function = function
        self.run_id = leased.run_id
        self.target = leased.step
        self.suspect = leased.suspect
        self.fields = leased.fields
        self.journal = Journal(
            shard,
            services.batchers[shard.shard],
            leased.run_id,
            leased.step,
            leased.token,
            int(leased.fields.get(b"dv") or 0),
            self.on_news,
        )
        self.checkpointing = function.checkpointing
        self.closing = ""
        self.why = ""
        self.began = services.monotonic()
        self.started_ms = services.clock.now_ms()
        self.root: asyncio.Task[Any] | None = None
        self.steps = Steps(self)
        self.hooks: Hooks | None = None
        self.finishing = False
        self._checking: asyncio.Handle | None = None
        self._idle_checks = 0
        self._far = False
        self._was_quiet = False

    # --- the life of an entry ---

    async def run(self) -> None:
        """Run the entry to its end. Never raises: what user code raises becomes the run's outcome."""
        self.root = asyncio.current_task()
        OWNER.set(self)
        while True:
            again = await self._pass()
            # What nobody awaited belongs to the pass that made it: its next step call ends it.
            self.steps.abandon()
            if not again:
                break
            self.fields = await self.services.read_run(self.shard, self.run_id)
            self.journal.dv = int(self.fields.get(b"dv") or 0)
            self.closing = ""
            self.steps = Steps(self)
        if self.closing == DONE and self._checking is None and not self.steps.tasks:
            # Nobody looks here any more: without these references in a ring the entry dies at once, and the collector has nothing to find.
            self.journal.on_news = _nothing
            del self.steps

    async def _pass(self) -> bool:
        """One call of the function; True when it must be entered again under the same lease."""
        ctx = self.context()
        self.hooks = None
        try:
            # In here, for a middleware's own code fails as the function's does: the run must reach an end.
            stack = self.function.client_middleware()
            if stack is not None:
                self.hooks = Hooks(stack, self.fields)
                await self.hooks.begin(ctx, self.function)
            value = await self._call(ctx)
        except asyncio.CancelledError:
            if not self.closing:
                if self.root is not None:
                    self.root.uncancel()
                return await self._end(outcome.interrupted(self))
            if self.root is not None:
                self.root.uncancel()
            return await self._closed()
        except Exception as error:  # noqa: BLE001 - whatever user code raises is the run's outcome
            return await self._end(outcome.of_error(self, error))
        except BaseException as error:
            if self._destroyed():
                raise
            # SystemExit and the like must not end the worker.
            return await self._end(outcome.of_error(self, error))
        return await self._end(outcome.of_value(self, value), value)

    async def _call(self, ctx: Context) -> Any:
        return await self.function.handler(ctx)

    def _destroyed(self) -> bool:
        """The loop is gone and this coroutine with it (GeneratorExit): nothing can be awaited, or committed, any more."""
        return self.root is None or asyncio.current_task(self.root.get_loop()) is not self.root

    def context(self) -> Context:
        """The context the function is called with."""
        event = self.trigger()
        function = self.function
        logger: Any = self.services.logger
        if self.steps.replaying:
            logger = ReplayLogger(logger, self.steps)
        return Context(
            event=event,
            events=memo.read_events(self.fields, event),
            run_id=self.run_id,
            entry_attempt=attempts_made(self.fields.get(b"t:")),
            max_attempts=function.retries.attempts,
            function_id=function.id,
            fn_id=function.fn_id,
            app_id=function.app_id,
            logger=logger,
            step=Step(self.steps),
            group=Group(self.steps),
        )

    def trigger(self) -> Event:
        """The event that started the run."""
        return memo.read_event(self.fields[b"e"])

    async def _end(self, end: outcome.Outcome, value: Any = None) -> bool:
        """The function returned or raised: commit what that means."""
        if self.closing in (SUSPEND, YIELD):
            # The coroutine was closed, yet went on: its own `except` ate the suspension.
            end = outcome.of_error(self, SuspendSwallowedError(self.steps.last_parked))
        elif self.closing in (LOST, DONE):
            return False
        elif self.closing == CANCEL:
            return await self._closed()
        self.closing = DONE
        self.journal.held.clear()
        if self.hooks is not None:
            end = await outcome.through_middleware(self, self.hooks, end, value)
        self.finishing = True
        self.services.on_finishing(self)
        buffer = self.steps.take_buffer()
        if end.status == "c" and not buffer and not self.target:
            code = await self.journal.returned(end.payload)
        else:
            code = await self.journal.commit(end.clause, buffer)
        if code == "CANCEL":
            self.closing = CANCEL
            return await self._closed()
        if code not in GOES_ON:
            self.services.lost(self)
            return False
        self.services.ended(self, end)
        return False

    async def _closed(self) -> bool:
        """The coroutine was closed from outside: commit the reason. True = enter again."""
        why = self.closing
        if why in (LOST, DONE):
            return False
        if why == CANCEL:
            payload = await self.services.cancel_payload(self.shard, self.run_id)
            self.journal.held.clear()
            await self.journal.commit(("F", "k", payload), self.steps.take_buffer())
            self.services.ended(self, outcome.cancelled(payload))
            return False
        if self.hooks is not None:
            try:
                await self.hooks.leave()
            except Exception as error:  # noqa: BLE001 - a hook's error is the run's, as everywhere
                self.closing, self.hooks = "", None
                return await self._end(outcome.of_error(self, error))
        if why == YIELD:
            code = await self.journal.commit(("Y", self.why), self.steps.take_buffer())
        else:
            code = await self.journal.commit(("S",), self.steps.take_buffer())
        if code == "AGAIN":
            return True
        if code == "CANCEL":
            self.closing = CANCEL
            return await self._closed()
        if code == "STUCK":
            self.closing = ""
            return await self._end(outcome.stuck(self))
        if code not in GOES_ON:
            self.services.lost(self)
        return False

    # --- closing ---

    def close(self, why: str, detail: str = "") -> None:
        """End the entry from outside its code: its root is cancelled, once."""
        if self.closing:
            # A cancel or a lost lease overrides a suspension whose commit will be refused anyway.
            return
        self.closing = why
        self.why = detail
        if self.root is not None:
            self.root.cancel()
        if why == SUSPEND:
            # Timers and waits don't wait for a slow `finally`.
            asyncio.get_running_loop().call_later(0.05, self._flush_held)

    def _flush_held(self) -> None:
        if self.closing == SUSPEND and self.journal.held:
            # What was buffered came first: a timer must not be remembered without it.
            self.services.spawn(self.journal.go_on(self.steps.take_buffer()))

    # --- quiescence ---

    def check_soon(self) -> None:
        """Something parked: look, once this turn of the loop is over, whether anything still goes on."""
        if self._checking is not None and self._far:
            # The entry waited for the world, looking now and then: that would be late.
            self._checking.cancel()
            self._checking = None
        if self._checking is None:
            self._idle_checks = 0
            self._far = False
            self._checking = asyncio.get_running_loop().call_soon(self._check)

    def _check(self) -> None:
        self._checking = None
        self._far = False
        steps = self.steps
        was_quiet, self._was_quiet = self._was_quiet, False
        if self.closing or not steps.parked or self.root is None:
            return
        if steps.executing or not self._quiet():
            self._check_later()
        elif not was_quiet:
            # A task that ended in this very turn wakes whoever waits for it only in the next.
            self._was_quiet = True
            self._checking = asyncio.get_running_loop().call_soon(self._check)
        elif steps.yielding:
            self.close(YIELD, steps.yielding)
        elif steps.candidates:
            steps.plan_or_execute()
        elif self.target:
            self.close(DONE)
            self.services.spawn(self._target_missed())
        else:
            self.close(SUSPEND)

    def _quiet(self) -> bool:
        steps = self.steps
        assert self.root is not None
        if not steps.tasks and len(steps.parked) == 1:
            # The root alone: what most runs are.
            (parked,) = steps.parked.values()
            if waits_on(self.root, parked.future):
                return not parked.future.done()
        tasks = [t for t in steps.tasks if not t.done()]
        return quiescent([self.root, *tasks], steps.futures())

    def _check_later(self) -> None:
        """What is not quiescent yet is either about to run (look again next turn) or waits for the world (look now and then).

        Timers and waits that other branches leave behind are written meanwhile."""
        if self.journal.held and (self.steps.executing or self._idle_checks >= 2):
            self.services.spawn(self.steps.flush_held())
        if self.steps.executing:
            return  # the step that ends looks again
        self._idle_checks += 1
        loop = asyncio.get_running_loop()
        if self._idle_checks <= 3:
            self._checking = loop.call_soon(self._check)
        else:
            self._far = True
            pause = min(1.0, 0.005 * 2 ** (self._idle_checks - 4))
            self._checking = loop.call_later(pause, self._check)

    async def _target_missed(self) -> None:
        end = outcome.target_missed(self)
        await self.journal.commit(end.clause, ())
        self.services.ended(self, end)

    # --- news from outside ---

    def on_news(self) -> None:
        """A result arrived for this run while it is here: read what its parked steps wait for."""
        if not self.closing:
            self.services.spawn(self._read_news())

    async def _read_news(self) -> None:
        names = self.steps.registered()
        if not names:
            return
        fields = [b"dv"]
        for name in names:
            fields += (name.record, name.pending)
        reply = await self.services.read_fields(self.shard, self.run_id, fields)
        if self.closing:
            return
        self.journal.dv = int(reply[0] or 0)
        for name, record, pending in zip(names, reply[1::2], reply[2::2], strict=True):
            if record is not None:
                self.steps.wake(name, record)
            elif pending is None:
                self.steps.wake(name, None)


def _nothing() -> None:
    """An entry that is over hears no news."""
