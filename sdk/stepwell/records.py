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

    `QUEUED` waits for a worker (first or again), `SCHEDULED` for the time its event names,
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
    latest), `crashes` how often its worker died while it alone was suspected.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOutcome:
    """What an event came to for one function: started, filtered, filter_error, ..."""

    app_id: str
    fn_id: str
    outcome: str
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An accepted event.

    `pending`: no coordinator has handled it yet. `duplicate_of` is the event that had its id first.
    No outcomes and not pending: no function wanted it.
    """

    id: str
    accepted_at: datetime
    event: Event | None = None
    outcomes: tuple[EventOutcome, ...] = ()
    pending: bool = False
    duplicate_of: str | None = None

    @property
    def run_ids(self) -> list[str]:
        """The runs that the event started."""
        return [o.run_id for o in self.outcomes if o.outcome == "started" and o.run_id]


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """A part of a list. With a `cursor` there may be more: pass it to the same call."""

    items: tuple[T_co, ...]
    cursor: str | None = None
