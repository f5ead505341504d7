"""The worker's metrics, with their label lookups done once a function."""

from functools import cache
from typing import Any

from stepwell_engine.metrics import Metrics

STATUS = {"c": "completed", "f": "failed", "k": "cancelled"}


class Counters:
    """What a worker counts."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._queued = metrics.queued_to_started.labels()
        self._ended = cache(self._ended_of)
        self._duration = cache(self._duration_of)

    def _ended_of(self, app: str, fn: str, status: str) -> Any:
        return self._metrics.runs_ended.labels(app, fn, STATUS[status])

    def _duration_of(self, app: str, fn: str) -> Any:
        return self._metrics.step_duration.labels(app, fn)

    def leased(self, fields: dict[bytes, bytes], now_ms: int) -> None:
        """A run's first entry begins."""
        if b"sa" not in fields:
            self._queued.observe(max(0, now_ms - int(fields.get(b"qa") or now_ms)) / 1000)

    def run_ended(self, app: str, fn: str, status: str) -> None:
        """A run ended here, with a status letter."""
        self._ended(app, fn, status).inc()

    def step_ended(self, app: str, fn: str, ms: int) -> None:
        """A step's callback took `ms`."""
        self._duration(app, fn).observe(ms / 1000)

    def lease_lost(self) -> None:
        """A lease was lost."""
        self._metrics.lease_losses.inc()
