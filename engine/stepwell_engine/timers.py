"""One shard's timer: calls due.lua when something is due, when told to look, and every few seconds anyway."""

import asyncio
from typing import Final

from stepwell.errors import INVOKE_TIMEOUT_NAME, InvokeTimeoutError, RunCancelledError
from stepwell_engine.fanout import packed_error
from stepwell_engine.metrics import Metrics
from stepwell_engine.recovery import Recovery
from stepwell_engine.store.store import Store

HORIZON_MS: Final = 5_000
"""The longest a shard is not looked at: bounds what a coordinator that died asleep can delay."""

_LIMIT: Final = 500
_LEAST_MS: Final = 1


class Timer:
    """Makes sleeps, timeouts, retries and future starts of one shard happen, and reclaims expired leases.

    Any number of timers of a shard may run, in as many processes. `poke` makes it look now.
    """

    __slots__ = ("_cancelled", "_metrics", "_recovery", "_shard", "_timed_out", "_woken")

    def __init__(self, store: Store, shard: int, recovery: Recovery, metrics: Metrics) -> None:
        self._shard = store.shards[shard]
        self._recovery = recovery
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
        if reply.next_expiry is not None and reply.next_expiry <= now:
            await self._recovery.reclaim(self._shard.shard)
            return _LEAST_MS
        if reply.handled >= _LIMIT:
            return 0
        times = [t for t in (reply.next_due, reply.next_expiry) if t is not None]
        return max(_LEAST_MS, min(*times, now + HORIZON_MS) - now) if times else HORIZON_MS
