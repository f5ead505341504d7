"""What an entry needs from its worker: reads, clocks, threads, signals, metrics. One object, made once."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from stepwell.errors import error_payload
from stepwell.events import Event
from stepwell.function import Function
from stepwell.runtime import SignalWait
from stepwell.serde import outputs
from stepwell.serde.values import pack
from stepwell_engine import signals
from stepwell_engine.routing import event_route
from stepwell_engine.store.transitions import Transitions
from stepwell_workers.attempts import Verdict
from stepwell_workers.batching import Batcher
from stepwell_workers.counters import Counters
from stepwell_workers.errors import RunCancelled
from stepwell_workers.memo import StepName
from stepwell_workers.outcome import Outcome
from stepwell_workers.threads import ThreadPool

if TYPE_CHECKING:
    from stepwell.client import Client
    from stepwell_engine.store.store import Store
    from stepwell_workers.entry import Entry

logger = logging.getLogger("stepwell.worker")


class Services:
    """The worker as its entries see it. `stop_reason` is set by the worker (drain), the rest is fixed."""

    def __init__(
        self,
        store: "Store",
        worker_id: str,
        threads: ThreadPool,
        *,
        client: "Client",
        saturated: Callable[[], bool],
        counters: Counters,
        on_finishing: Callable[["Entry"], None],
    ) -> None:
        self.store = store
        self.worker_id = worker_id
        self.threads = threads
        self.limits = client.limits
        self.clock = store.clock
        self.monotonic = time.monotonic
        self.random = random.Random()
        self.logger = client.logger
        self.draining = ""
        self.batchers = [Batcher(shard) for shard in store.shards]
        self._counters = counters
        self.on_finishing = on_finishing
        self._saturated = saturated
        self._background: set[asyncio.Task[Any]] = set()

    # --- tasks and reads ---

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> None:
        """Run something beside the entries; its error is logged, an entry's stop is no error."""
        task = asyncio.get_running_loop().create_task(coro)
        self._background.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: "asyncio.Task[Any]") -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("background work failed", exc_info=task.exception())

    async def read_run(self, shard: Transitions, run_id: str) -> dict[bytes, bytes]:
        """A run's whole hash."""
        key = shard.keys.run(run_id)
        flat: list[bytes] = await self.store.server.call(key, "HGETALL", key)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def read_fields(
        self, shard: Transitions, run_id: str, fields: Sequence[bytes]
    ) -> list[bytes | None]:
        """Some fields of a run's hash, at one moment."""
        key = shard.keys.run(run_id)
        reply: list[bytes | None] = await self.store.server.call(key, "HMGET", key, *fields)
        return reply

    async def cancel_payload(self, shard: Transitions, run_id: str) -> bytes:
        """Why a run was cancelled, as its canceller wrote it."""
        found = (await self.read_fields(shard, run_id, [b"er"]))[0]
        return found or pack(error_payload(RunCancelled("the run was cancelled")))

    # --- the course of an entry ---

    def stop_reason(self, entry: "Entry") -> str:
        """Why an entry must not begin another step now ('' = it may)."""
        if self.draining:
            return self.draining
        # Others may wait for this process' slot, or for one of the function's: to yield costs one entry more in `max_runtime`.
        if not (self._saturated() or entry.function.flow.concurrency):
            return ""
        ran = (self.monotonic() - entry.began) * 1000
        return "max_runtime" if ran > entry.checkpointing.max_runtime_ms else ""

    def lost(self, entry: "Entry") -> None:
        """An entry's lease is another's now."""
        self._counters.lease_lost()
        logger.warning(
            "run %s of %s: the lease was lost; what this entry did since its last step is dropped",
            entry.run_id,
            entry.function.id,
        )

    def ended(self, entry: "Entry", end: Outcome | None) -> None:
        """An entry was committed; `end` is what that means for its run (None: a planned step)."""
        if end is None or not end.status:
            if end is not None and end.error is not None and not end.quiet:
                logger.warning(
                    "run %s of %s will be tried again",
                    entry.run_id,
                    entry.function.id,
                    exc_info=end.error,
                )
            return
        self._counters.run_ended(entry.function.app_id, entry.function.fn_id, end.status)
        if end.status == "f" and not end.quiet:
            logger.error("run %s of %s failed", entry.run_id, entry.function.id, exc_info=end.error)

    async def step_started(self, entry: "Entry", what: str) -> None:
        """A suspect names the step it is about to run."""
        await entry.shard.started(entry.run_id, entry.target, entry.journal.token, what.encode())

    def step_ended(self, entry: "Entry", took_ms: int) -> None:
        """A step's callback returned, after so many milliseconds."""
        self._counters.step_ended(entry.function.app_id, entry.function.fn_id, took_ms)

    def attempt_failed(
        self, entry: "Entry", step_id: str, verdict: Verdict, error: BaseException
    ) -> None:
        """A step's attempt failed."""
        if verdict.quiet:
            return
        delay = verdict.delay_ms
        fate = "no attempt is left" if delay is None else f"next attempt in {delay / 1000:g} s"
        logger.warning(
            "step %r of run %s (%s) failed; %s",
            step_id,
            entry.run_id,
            entry.function.id,
            fate,
            exc_info=error,
        )

    # --- values, events, signals ---

    def codec(
        self, function: Function[Any], handler: Callable[..., Any] | None, output_type: Any
    ) -> "outputs.Codec | None":
        """How a result is turned into plain values and back; None when it is plain."""
        serializer = function.options.serializer or function.client.serializer
        return outputs.codec_for(handler, output_type, serializer)

    def event_route(self, event: Event) -> tuple[str, str]:
        """(hash of the user's event id, the shard that de-duplicates it), both '' without an id."""
        if not event.id:
            return "", ""
        route = event_route(event.id, len(self.store.shards))
        return route.hash, str(route.shard)

    async def reserve_signal(
        self, entry: "Entry", name: StepName, wait: SignalWait
    ) -> tuple[bool, bytes | None]:
        """Claim a signal's name for a step: (taken?, value held for it)."""
        reserved = await signals.reserve_signal(
            self.store,
            wait.signal,
            entry.run_id,
            name.key,
            timeout_ms=wait.timeout_ms,
            replace=wait.replace,
        )
        return reserved.taken, reserved.value

    async def send_signal(self, signal: str, value: bytes, hold_ms: int) -> str | None:
        """Send a signal; the run that received it."""
        return await signals.send_signal(self.store, signal, value, hold_ms=hold_ms)
