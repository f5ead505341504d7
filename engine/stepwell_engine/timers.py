"""One shard's timer: calls due.lua when something is due, when told to look, and every few seconds anyway."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from stepwell.errors import INVOKE_TIMEOUT_NAME, InvokeTimeoutError, RunCancelledError
from stepwell_engine.cron_run import Crons
from stepwell_engine.fanout import packed_error
from stepwell_engine.metrics import Metrics
from stepwell_engine.recovery import Recovery
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store

HORIZON_MS: Final = 5_000
"""The longest a shard is not looked at: bounds what a coordinator that died asleep can delay."""

_LIMIT: Final = 500
_TICKS: Final = 100
_WINDOWS: Final = 20
_LEAST_MS: Final = 1


class Timer:
    """Makes sleeps, timeouts, retries, future starts and cron ticks of one shard happen, and reclaims expired leases.

    Any number of timers of a shard may run, in as many processes. `poke` makes it look now.
    """

    __slots__ = (
        "_cancelled",
        "_crons",
        "_metrics",
        "_recovery",
        "_registry",
        "_shard",
        "_timed_out",
        "_woken",
    )

    def __init__(
        self,
        store: Store,
        shard: int,
        recovery: Recovery,
        crons: Crons,
        registry: Registry,
        metrics: Metrics,
    ) -> None:
        self._shard = store.shards[shard]
        self._crons = crons
        self._recovery = recovery
        self._registry = registry
        self._metrics = metrics
        self._woken = asyncio.Event()
        self._timed_out = packed_error(InvokeTimeoutError(), name=INVOKE_TIMEOUT_NAME)
        self._cancelled = packed_error(RunCancelledError("the run was cancelled"))

    def poke(self) -> None:
        """Look at what is due now."""
        self._woken.set()

    async def turn(self) -> None:
        """Handle all that is due, then wait for the next. Raises ServerError."""
        # Cleared before the look: a poke during it means another look.
        self._woken.clear()
        delay_ms = await self._look()
        if delay_ms > 0:
            try:
                async with asyncio.timeout(delay_ms / 1000):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _look(self) -> float:
        """One call of due.lua; milliseconds until the next."""
        reply = await self._shard.due(
            limit=_LIMIT,
            horizon_ms=HORIZON_MS,
            timeout_error=self._timed_out,
            cancelled_error=self._cancelled,
        )
        # The server's clock is the one that decides; ours may differ.
        now = reply.now_ms
        if reply.handled:
            self._metrics.timer_lateness.observe(reply.late_ms / 1000)
        if reply.windows:
            await self._close(reply.windows)
        if reply.ticks:
            # They stay due until this is done; what else the reply tells of `due` is old then.
            # Not too many at once, or what else is due waits for all the crons of a full hour.
            await self._crons.handle(self._shard.shard, reply.ticks[:_TICKS], now)
            return 0
        if reply.windows:
            return 0
        if reply.next_expiry is not None and reply.next_expiry <= now:
            await self._recovery.reclaim(self._shard.shard)
            return _LEAST_MS
        if reply.handled >= _LIMIT:
            return 0
        times = [t for t in (reply.next_due, reply.next_expiry) if t is not None]
        return max(_LEAST_MS, min(*times, now + HORIZON_MS) - now) if times else HORIZON_MS

    async def _close(self, windows: Sequence[str]) -> None:
        """End debounces and batches that are over, a few at a time: each may hold 10 MiB of events."""
        for start in range(0, len(windows), _WINDOWS):
            started = await self._shard.close(windows[start : start + _WINDOWS])
            for number, count in Counter(started).items():
                self._metrics.runs_started.labels(*self._registry.names(number)).inc(count)
