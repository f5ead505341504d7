"""What one event comes to: an outcome for each function that wants it, as the record that fixes them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from stepwell.ids import run_entropy
from stepwell.serde.values import unpack
from stepwell_engine.entries import INVOKED, SKIPPED_EVENT, Entry, future_ts
from stepwell_engine.limits.admission import Admission, Asked
from stepwell_engine.limits.event_keys import KeyFault
from stepwell_engine.packer import Packer
from stepwell_engine.registry import Registry
from stepwell_engine.store.transitions import NewRun
from stepwell_engine.triggers import STARTED, RegisteredFunction, Route
from stepwell_engine.views import NOT_FOUND

ERROR: Final = "error"
"""The outcome of an entry that can't be handled; its record says why."""

_LONG_MS: Final = 3_600_000  # against the two days that every outcome can be looked up

# Runs started by the end of another emit no events of their own end: two functions that watch each
# other would never come to rest. The same goes for events that say that a run was not started.
_SILENT: Final = frozenset({"inngest/function.finished", "inngest/function.failed", SKIPPED_EVENT})


# Records hold nothing that needs the checks of `serde.pack`, and one is written for nearly every event.
_packer: Final = Packer()


class Outcome(NamedTuple):
    """One row of a plan; `run` and `number` are '' when none was started.

    `ask`: under what flow control. Then `oc:<event>` on its shard may tell of another outcome.
    """

    app: str
    fn: str
    outcome: str
    run: str
    shard: int
    number: str = ""
    ask: Admission = Admission()


class Work:
    """One event on its way through a batch of `shard`. `target` and `parent` are set on invokes."""

    __slots__ = ("_fields", "entry", "parent", "route", "shard", "target")

    def __init__(self, entry: Entry, route: Route, shard: int) -> None:
        self.entry = entry
        self.route = route
        self.shard = shard
        self.target: tuple[str, str] | None = None
        self.parent = ""
        self._fields: Mapping[str, Any] | None = None

    def fields(self) -> Mapping[str, Any]:
        """The event as expressions see it, decoded once. Raises ValueError."""
        if self._fields is None:
            self._fields = self.entry.decode().to_dict()
        return self._fields

    def read_target(self) -> None:
        """Read whom an invoke is for. Raises ValueError."""
        app, fn, self.parent = unpack(self.entry.extra)
        self.target = app, fn


class Plan:
    """The outcomes of one event, and what `fanout` needs to bring them about.

    `local`: all its runs live on the event's own shard. `faults`: keys of flow control that had no value. `keep_ms`: how much later
    than at once an outcome may be decided; 0 unless that is long (a window of days).
    """

    __slots__ = ("_asked", "_certain", "faults", "keep_ms", "local", "rows", "work")

    def __init__(self, work: Work, rows: Sequence[Outcome]) -> None:
        self.work = work
        self.rows = rows
        self.local = True
        self.faults: list[tuple[Outcome, KeyFault]] = []
        self._asked = self._certain = False
        longest = 0
        for row in rows:
            ask = row.ask
            if row.run:
                self.local = self.local and row.shard == work.shard
                self._certain = self._certain or ask.certain
            if ask.flow:
                self._asked = True
            if ask.faults:
                self.faults += [(row, fault) for fault in ask.faults]
            longest = max(longest, ask.keep_ms)
        self.keep_ms = longest if longest > _LONG_MS else 0

    @property
    def targets(self) -> set[int]:
        """The shards its runs live on."""
        return {row.shard for row in self.rows if row.run}

    def record(self, *, whole: bool = False) -> bytes:
        """The event record; it holds the event itself unless a run surely does. `whole`: with what `under` needs.

        One that is not goes with the acknowledgement: it says so where runs could not be asked for by it again.
        """
        entry = self.work.entry
        record: dict[str, Any] = {
            "name": entry.name,
            "ts": entry.us // 1000,
            "shard": self.work.shard,
            "plan": [(*row[:5], *row.ask[:3]) if whole else row[:5] for row in self.rows],
        }
        if not self._certain:
            record["event"] = entry.data
        if self._asked and not whole:
            record["handled"] = True
        return _packer.pack(record)

    def runs(self, shard: int) -> list[NewRun]:
        """The runs to create on that shard."""
        work = self.work
        entry = work.entry
        created = entry.us // 1000
        start = future_ts(entry.data, work.route.name_bytes)
        blob = entry.blob
        silent = entry.name in _SILENT
        order = entry.order
        return [
            NewRun(
                run, number, app, blob, start if start > created else 0, created, silent,
                work.parent if (app, fn) == work.target else "",
                ask.key, ask.flow, order,
            )
            for app, fn, _, run, home, number, ask in self.rows
            if run and home == shard
        ]  # fmt: skip

    def under(self, held: bytes, registry: Registry) -> "Plan | None":
        """The plan that an earlier coordinator fixed for the event, which holds instead of this one.

        None when the event was handled since it was delivered here: by what is left of the plan, events that were gathered or
        refused would start runs of their own.
        """
        found: dict[str, Any] = unpack(held)
        if found.get("handled"):
            return None
        rows: list[Outcome] = []
        for app, fn, outcome, run, shard, *ask in found["plan"]:
            # Removed since: it was decided before that.
            function = registry.known(app, fn)
            number = function.number if function else ""
            asked = Admission(*ask)
            rows.append(Outcome(app, fn, outcome, run if number else "", shard, number, asked))
        return Plan(self.work, rows)


def plan(work: Work, registry: Registry, now_ms: int) -> Plan:
    """Decide an event. Raises ValueError when it can't be decoded."""
    entry = work.entry
    # The run's id has the accept time of the event's id, which every redelivery carries.
    stamp = entry.id[:10]
    rows: list[Outcome] = []
    if work.target is not None:
        function = registry.find(*work.target)
        rows.append(
            Outcome(*work.target, NOT_FOUND, "", 0)
            if function is None
            else start_row(function, work, stamp, now_ms)
        )
    for function, outcome in work.route.outcomes(work.fields, now_ms):
        if (function.app, function.fn) == work.target:
            continue
        if outcome == STARTED:
            rows.append(start_row(function, work, stamp, now_ms))
        else:
            rows.append(Outcome(function.app, function.fn, outcome, "", function.shard))
    return Plan(work, rows)


def start_all(
    entry: Entry, functions: Sequence[RegisteredFunction], name_bytes: int, shard: int
) -> list[NewRun]:
    """The runs of what most events are: wanted by `functions`, which ask for nothing and live on its shard.

    Such an event has no record: its outcomes are its runs, whose ids are known from it (gateway.py finds them so).
    """
    event = entry.id
    stamp = event[:10]
    created, order = entry.us // 1000, entry.order
    start = future_ts(entry.data, name_bytes)
    if start <= created:
        start = 0
    blob = event.encode() + entry.data
    return [
        NewRun(
            stamp + run_entropy(event, function.app, function.fn, shard),
            function.number,
            function.app,
            blob,
            start,
            created,
            order=order,
        )
        for function in functions
    ]


def start_row(function: RegisteredFunction, work: Work, stamp: str, now_ms: int) -> Outcome:
    """The row of a function that an event starts, if its flow control lets it."""
    app, fn, shard = function.app, function.fn, function.shard
    run = stamp + run_entropy(work.entry.id, app, fn, shard)
    if function.flow is None:
        return Outcome(app, fn, STARTED, run, shard, function.number)
    entry = work.entry
    asked = Asked(
        work.fields,
        future_ts(entry.data, work.route.name_bytes) or entry.us // 1000,
        now_ms,
        entry.kind == INVOKED and (app, fn) == work.target,
        entry.name == SKIPPED_EVENT,
        entry.us,
    )
    ask = function.flow.admission(function, asked)
    return Outcome(app, fn, STARTED, run, shard, function.number, ask)


def error_record(entry: Entry, home: int, why: str) -> bytes:
    """The record of an event that can't be handled."""
    return _packer.pack(
        {
            "name": entry.name,
            "ts": entry.us // 1000,
            "shard": home,
            "plan": [("", "", ERROR, "", home)],
            "event": entry.data,
            "error": why[:1000],
        }
    )
