"""What explain_read.py reads of a run, and explain.py tells of: plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stepwell.records import Explanation, Run, RunStatus


class Holder(NamedTuple):
    """Who holds a slot of a gate: a run (for one of its steps), of which function, since when (ms)."""

    run_id: str
    function: str
    since_ms: float
    status: RunStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A gate in a queue key. `kind` as in limits/keys.py; `key` its expression, '' for none; `value` what that gives for this run.

    `kept`: functions that have a slot and wait for their other shared limit.
    `limit` and `interval_us` are what holds now. `ready_us`: from when a throttle admits its next start.
    """

    kind: str
    key: str = ""
    value: str = ""
    limit: int = 0
    holders: Sequence[Holder] = ()
    kept: Sequence[str] = ()
    interval_us: int = 0
    ready_us: float = 0.0

    @property
    def label(self) -> str:
        """Whose limit it is."""
        return f" of {self.key} = {self.value}" if self.key else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Who could take the item: live processes, those of them seen with items of the app, and whether a ring waits unheard.

    `removed`: nobody is asked to serve its function any more.
    """

    alive: int = 0
    busy: Mapping[str, int] = field(default_factory=dict[str, int])
    rung: bool = False
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a queued item is. `gate`: parked there, since about `since_ms`; `before`: items of its queue that go first."""

    before: int = 0
    gate: Gate | None = None
    suspect: bool = False
    key: str = ""
    service: Service = Service()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read of a run. `places` by step key, '' is the root; so is `due` (ms), with '!' '<' '>' for what is not a step.

    `held`: until it is known whether an event that came before it was created cancels it.
    """

    run: Run
    now_ms: int
    attempts: int
    max_crashes: int
    since_ms: float | None = None
    worker_alive: bool = True
    lease_ms: float | None = None
    failed: Mapping[str, int] = field(default_factory=dict[str, int])
    places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    due: Mapping[str, float] = field(default_factory=dict[str, float])
    children: Mapping[str, "Explanation | str"] = field(
        default_factory=dict[str, "Explanation | str"]
    )
    never: frozenset[str] = frozenset()
    held: bool = False
