"""What the client tells about runs, steps and events: values, as they were when they were read.

The run's state machine is here too: `LEGAL` is the table that the server's scripts assert.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from stepwell.events import Event

T_co = TypeVar("T_co", covariant=True)


class RunStatus(StrEnum):
    """Where a run is.

    `QUEUED` waits for a worker (first or again), `SCHEDULED` for the time its event names
    (or for a moment, until it is known whether an event that came before it was created cancels it),
    `RUNNING` is with a worker, `WAITING` sleeps or waits for a retry, an event, a signal, another
    function or its own parallel steps; `CANCELLING` was told to stop. The other three are ends.
    """

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    WAITING = "waiting"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the run is over; its status never changes again."""
        return self in _ENDS


_ENDS: Final = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})

LEGAL: Final[Mapping[str, frozenset[str]]] = {
    "q": frozenset("qrxkf"),
    "r": frozenset("rxcfk"),
    "x": frozenset("xk"),
}
"""The stored status letters and what may follow each; `c`, `f` and `k` are ends."""

_LETTERS: Final = {
    "x": RunStatus.CANCELLING,
    "c": RunStatus.COMPLETED,
    "f": RunStatus.FAILED,
    "k": RunStatus.CANCELLED,
}
_PLACES: Final = {
    "q": RunStatus.QUEUED,
    "d": RunStatus.WAITING,
    "l": RunStatus.RUNNING,
    "p": RunStatus.WAITING,
}


def run_status(letter: str, place: str) -> RunStatus:
    """The status told by a run's stored status letter and the state of its root (`rs`)."""
    if letter == "q" and place == "d":
        return RunStatus.SCHEDULED
    return _LETTERS.get(letter) or _PLACES[place]


class StepStatus(StrEnum):
    """Where a step is. Only steps that are queue items of their own are `QUEUED` or `RUNNING`."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An error as it was recorded: a stable `code`, the class `name`, message and traceback."""

    code: str = "unknown"
    name: str = "Error"
    message: str = ""
    stack: str | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A failed attempt of a step or of the function's body; `number` counts from 0."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime
    error: ErrorInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stay of a run, or of one of its parallel steps, with a worker.

    `outcome`: suspended, finished, retry, yielded, step done, lost (its worker was), "" while it
    lasts. `step_key` is None for the function itself.
    """

    worker: str
    queued_at: datetime
    started_at: datetime
    ended_at: datetime | None = None
    outcome: str = ""
    step_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A step of a run.

    `op`: run, sleep, sleep_until, wait, signal, invoke, send_event or send_signal. `due_at` is when
    a sleep, a timeout or a retry falls due. `details` tell what it waits for.
    """

    id: str
    key: str
    op: str
    status: StepStatus
    output: Any = None
    error: ErrorInfo | None = None
    attempts: tuple[Attempt, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run as `list_runs` shows it. Times are aware, in UTC."""

    id: str
    app_id: str
    fn_id: str
    status: RunStatus
    event_name: str
    created_at: datetime
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: ErrorInfo | None = None
    parent_run_id: str | None = None

    @property
    def function_id(self) -> str:
        """The function's id over all apps, `app-fn`."""
        return f"{self.app_id}-{self.fn_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunSummary):
    """Everything that is recorded about a run.

    `attempts` are the failed ones of the body, `entries` its stays with workers (of long runs the
    latest), `crashes` how often its worker died while it alone was suspected. `warnings`: keys of flow control that had no value.
    """

    output: Any = None
    events: tuple[Event, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    entries: tuple[Entry, ...] = ()
    parent_step_key: str | None = None
    worker: str | None = None
    crashes: int = 0
    state_bytes: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCancel:
    """What `client.cancel_runs` did: how many runs it cancelled (in a `dry_run`: would have), and the ids of the first 1,000."""

    count: int
    run_ids: tuple[str, ...]
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedFunction:
    """What `client.remove_function` did.

    `fn_ids`: the functions removed, its `on_failure` among them. `cancelled`: how many live runs were cancelled. `left`: how many runs
    (and open debounces and batches) are still there, for workers that have the code; counted up to 1,000 of each function.
    """

    app_id: str
    fn_ids: tuple[str, ...]
    cancelled: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a run is not running now, as `client.explain` found it; `str()` gives the sentence.

    `reason`: completed, failed, cancelled, cancelling, running, scheduled, held (until it is known whether an earlier event cancels it),
    sleep, wait, signal, invoke, retry, steps (several at once), queued, concurrency, throttle, singleton, suspect, no_worker, gathering (a
    debounce or batch that is open; `status` is None, for the run is not there yet) or not_started. `until`: when that changes by itself.
    `runs`: those it waits for, nearest first. `because` explains the first of them where that is why.
    """

    run_id: str
    function_id: str
    status: RunStatus | None
    reason: str
    text: str
    until: datetime | None = None
    runs: tuple[str, ...] = ()
    because: "Explanation | None" = None

    def __str__(self) -> str:
        return self.text


_REASONS: Final = {
    "started": "started run {run}",
    "filtered": "the trigger's expression is not true for this event",
    "filter_error": "the trigger's expression has no value for this event",
    "not_found": "no worker has registered the function, or it was removed",
    "error": "the event could not be handled",
    "rate_limited": "the rate limit was reached",
    "duplicate": "run {run} has the same idempotency key and began within 24 hours",
    "skipped": "run {run} has the same singleton key and had not ended",
    "debounced": "debounced: run {run} is for this burst of events",
    "replaced": "a later event took its place in the debounce, for run {run}",
    "batched": "part of the batch of run {run}",
    "cancelled": "the run was cancelled before it began",
    "cancels": "cancelled run {run}",
}
_RUNS: Final = frozenset({"started", "debounced", "batched"})
_WINDOWS: Final = {"debounced": " when the debounce ended", "batched": " when the batch closed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOutcome:
    """What an event came to for one function.

    `outcome`: started, filtered, filter_error, not_found or error; with flow control also debounced or batched (into `run_id`), or
    rate_limited, duplicate (of `run_id`), skipped (for `run_id`, which had the singleton's key), cancelled; of an event that a `Cancel`
    names also cancels (`run_id`). `gathered` is debounced or batched when the outcome is that of the run which the event was gathered for.
    """

    app_id: str
    fn_id: str
    outcome: str
    run_id: str | None = None
    gathered: str | None = None

    @property
    def reason(self) -> str:
        """The outcome as a sentence's worth of text."""
        text = _REASONS.get(self.outcome, self.outcome).format(run=self.run_id or "")
        return text + _WINDOWS.get(self.gathered or "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An accepted event.

    `pending`: no coordinator has handled it yet. `duplicate_of` is the event that had its id first.
    No outcomes and not pending: no function wanted it. `cancelled` is how many runs it cancelled; the first are among the outcomes.
    """

    id: str
    accepted_at: datetime
    event: Event | None = None
    outcomes: tuple[EventOutcome, ...] = ()
    pending: bool = False
    duplicate_of: str | None = None
    cancelled: int = 0

    @property
    def run_ids(self) -> list[str]:
        """The runs that the event started, alone or with others (batch, debounce)."""
        return [o.run_id for o in self.outcomes if o.outcome in _RUNS and o.run_id]


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """A part of a list. With a `cursor` there may be more: pass it to the same call."""

    items: tuple[T_co, ...]
    cursor: str | None = None
