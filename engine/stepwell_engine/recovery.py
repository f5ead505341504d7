"""Leases that ran out: their items are queued again, or their run fails after a crash too many."""

import logging
from typing import Final

from stepwell.errors import WorkerLostError
from stepwell_engine.fanout import packed_error
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Expired

_LIMIT: Final = 200
_MAX_CRASHES: Final = 3

logger = logging.getLogger("stepwell.coordinator")


class Recovery:
    """Takes expired leases away. Several may work on one shard: the script acts on each lease once."""

    __slots__ = ("_metrics", "_registry", "_store")

    def __init__(self, store: Store, registry: Registry, metrics: Metrics) -> None:
        self._store = store
        self._registry = registry
        self._metrics = metrics

    async def reclaim(self, shard: int) -> list[tuple[str, str]]:
        """Handle one batch of expired leases; (item, outcome) of each. Raises ServerError."""
        expired = await self._store.shards[shard].expired(_LIMIT)
        if not expired:
            return []
        items = [(e.item, e.token, self._most(e), self._error(e)) for e in expired]
        outcomes = await self._store.shards[shard].reclaim(items)
        for lease, (item, outcome) in zip(expired, outcomes, strict=True):
            if outcome == "kept":
                continue
            self._metrics.lease_losses.inc()
            logger.warning(
                "the lease of %s by %s ran out (%s): %s",
                item, lease.worker, "its process lives" if lease.alive else "its process is gone", outcome,
            )  # fmt: skip
            if outcome in ("failed", "cancelled"):
                self._ended(lease, "f" if outcome == "failed" else "k")
        return outcomes

    def _most(self, lease: Expired) -> int:
        function = self._registry.numbered(lease.number)
        return function.max_crashes if function else _MAX_CRASHES

    def _ended(self, lease: Expired, status: str) -> None:
        function = self._registry.numbered(lease.number)
        if function is not None:
            self._metrics.run_ended(function.app, function.fn, status)

    def _error(self, lease: Expired) -> bytes:
        """What the run fails with, should this crash be one too many."""
        step = lease.started.decode(errors="replace") or None
        doing = f"while it ran step {step!r}" if step else "while it ran the function's body"
        text = (
            f"worker {lease.worker} was lost {doing}, after {lease.crashes} crashes of this run before: "
            "the code seems to kill its process (out of memory, a native crash, os._exit); "
            f"max_crashes is {self._most(lease)}"
        )
        return packed_error(WorkerLostError(text, worker=lease.worker, step_id=step))
