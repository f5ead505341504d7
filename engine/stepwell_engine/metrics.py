"""What Stepwell counts, as Prometheus metrics: one object for a process, shared by coordinator and worker.

Importing it starts nothing; counts are added once a batch, never once an event.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stepwell_engine.tally import Tally

__all__ = ["Metrics"]

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LONG = (*_SHORT, 900, 3600, 7200)
_FUNCTION = ("app", "function")
REASONS = frozenset(
    {"api", "bulk", "event", "parent", "removed", "singleton", "timeout_start", "timeout_finish"}
)
"""Why runs are cancelled; `other` stands for any other."""


class Metrics:
    """The metrics of one process. Labels name apps, functions and words of ours only, so their number is bounded by the registry.

    `registry` defaults to a fresh one, which `stepwell_engine.health.Health` serves.

        metrics = Metrics()
        metrics.runs_started.labels("shop", "ship").inc(40)
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._events()
        self._runs()
        self._crons_and_queues()
        self._health()

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _events(self) -> None:
        self.events_accepted = self._counter(
            "stepwell_events_accepted_total",
            "Events taken from the streams, internal ones included.",
        )
        self.events_unmatched = self._counter(
            "stepwell_events_unmatched_total", "Events that started no function, filters included."
        )
        self.events_poison = self._counter(
            "stepwell_events_poison_total", "Stream entries given up because they can't be handled."
        )
        self.filter_errors = self._counter(
            "stepwell_filter_errors_total",
            "Trigger expressions that had no value for an event.",
            _FUNCTION,
        )
        self.flow_key_errors = self._counter(
            "stepwell_flow_key_errors_total",
            "Keys of flow control that had no value for an event.",
            (*_FUNCTION, "option"),
        )
        self.waits_matched = self._counter(
            "stepwell_waits_matched_total", "Waits for an event that one ended."
        )
        self.deliveries_failed = self._counter(
            "stepwell_deliveries_failed_total",
            "Messages between shards that were set aside, for an error that trying again at once can't mend.",
        )
        self.deliveries_kept = self._gauge(
            "stepwell_deliveries_kept",
            "Messages between shards that are set aside now; each coordinator exports it: take the max.",
        )
        self.redeliveries = self._counter(
            "stepwell_redeliveries_total", "Stream entries taken over from another or a failed try."
        )

    def _runs(self) -> None:
        self.runs_started = self._counter(
            "stepwell_runs_started_total", "Runs created by events.", _FUNCTION
        )
        self.runs_ended = self._counter(
            "stepwell_runs_ended_total",
            "Runs that ended: completed, failed or cancelled.",
            (*_FUNCTION, "status"),
        )
        self.runs_cancelled = self._counter(
            "stepwell_runs_cancelled_total",
            "Runs cancelled, by what asked for it.",
            (*_FUNCTION, "reason"),
        )
        self.runs_swept = self._counter(
            "stepwell_runs_swept_total", "Ended runs removed after the retention."
        )
        self.step_duration = Tally(
            "stepwell_step_duration_seconds",
            "Time a step's callback took.",
            _LONG,
            _FUNCTION,
            self.registry,
        )
        self.queued_to_started = Tally(
            "stepwell_run_queued_to_started_seconds",
            "From the moment a run could start to its lease.",
            _SHORT,
            (),
            self.registry,
        )
        self.timer_lateness = self._histogram(
            "stepwell_timer_lateness_seconds",
            "How late the oldest of a batch of sleeps, timeouts and retries was handled.",
            _SHORT,
        )

    def _crons_and_queues(self) -> None:
        self.cron_ticks = self._counter(
            "stepwell_cron_ticks_total", "Cron ticks that started a run.", _FUNCTION
        )
        self.cron_skipped = self._counter(
            "stepwell_cron_skipped_total",
            "Missed cron ticks that the function's catch-up leaves out, at most 1,000 counted at a time.",
            _FUNCTION,
        )
        self.cron_lateness = self._histogram(
            "stepwell_cron_lateness_seconds",
            "How late the newest of a function's due ticks was handled, its jitter aside.",
            _LONG,
        )
        self.queue_depth = self._gauge(
            "stepwell_queue_depth",
            "Items ready and not leased; each coordinator exports it: take the max.",
            _FUNCTION,
        )
        self.queue_oldest = self._gauge(
            "stepwell_queue_oldest_seconds", "Age of the oldest run with a ready item.", _FUNCTION
        )

    def _health(self) -> None:
        self.lease_losses = self._counter(
            "stepwell_lease_losses_total", "Leases that ran out or were taken away."
        )
        self.redis_errors = self._counter(
            "stepwell_redis_errors_total", "Calls to the server that failed, before any retry."
        )
        self.loop_lag = self._gauge(
            "stepwell_loop_lag_seconds", "How late the event loop woke at its last sample."
        )
        self.workers = self._gauge("stepwell_workers", "Workers whose heartbeat is fresh.")

    def run_ended(self, app: str, function: str, status: str) -> None:
        """Count the end of a run; `status` is its stored letter: c, f or k."""
        self.runs_ended.labels(app, function, _STATUS[status]).inc()

    def run_cancelled(self, app: str, function: str, reason: str) -> None:
        """Count a cancelled run; a reason of another version is `other`."""
        known = reason if reason in REASONS else "other"
        self.runs_cancelled.labels(app, function, known).inc()


_STATUS = {"c": "completed", "f": "failed", "k": "cancelled"}
