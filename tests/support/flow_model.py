"""What flow control should do at run creation, in plain Python: tests/lua/test_admission.py holds the scripts against it.

Times are ticks of the test's clock; windows and periods end half-way between two.
"""

from dataclasses import dataclass, field
from typing import Any

ENDED = "cfk"


@dataclass(frozen=True)
class Arrival:
    """One event for one function: `run` is the run it would start alone."""

    event: str
    fn: str
    run: str
    key: str
    order: str
    ts: int
    parent: str = ""
    accepted: int = 0

    @property
    def window_run(self) -> str:
        """The run of a window that it opens: an invoke's own id stands for the invoke alone."""
        return self.run[:10] + self.run[23:9:-1] + self.run[24:] if self.parent else self.run


@dataclass
class Options:
    """Options in ticks; 0 or '' = not used."""

    idempotent: bool = False
    debounce: float = 0
    timeout: float = 0
    collect: bool = False
    batch: int = 0
    batch_timeout: float = 0
    limit: int = 0
    period: float = 0
    singleton: str = ""


@dataclass
class ModelRun:
    fn: str
    events: list[str]
    trigger: str
    parents: list[str]
    key: str
    st: str = "q"
    leased: bool = False


@dataclass
class Window:
    run: str
    opened: float
    due: float
    arrivals: list[Arrival]
    all: bool
    orders: list[str] = field(default_factory=list[str])


@dataclass
class FlowModel:
    """All functions' decisions. `told`: what each parent heard without a run; `skips`: (event, reason) in the order told."""

    options: dict[str, Options]
    now: float = 0
    runs: dict[str, ModelRun] = field(default_factory=dict[str, ModelRun])
    outcomes: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    windows: dict[tuple[str, str], Window] = field(default_factory=dict[Any, Window])
    starts: dict[tuple[str, str], list[float]] = field(default_factory=dict[Any, Any])
    keys: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict[Any, Any])
    locks: dict[tuple[str, str], str] = field(default_factory=dict[Any, str])
    newest: dict[tuple[str, str], int] = field(default_factory=dict[Any, int])
    told: list[str] = field(default_factory=list[str])
    skips: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def admit(self, a: Arrival) -> None:
        if a.run in self.runs or (a.event, a.fn) in self.outcomes:
            return
        o = self.options[a.fn]
        until, other = self.keys.get((a.fn, a.order), (-1.0, ""))
        if o.idempotent and until > self.now:
            self.refuse(a, f"duplicate {other}")
        elif o.debounce:
            self.debounce(a, o)
        elif o.batch:
            self.batch(a, o)
        elif self.start(a.run, [a], a, o) and o.idempotent:
            self.keys[a.fn, a.order] = (self.now + 864, a.run)

    def refuse(self, a: Arrival, outcome: str, run: str = "") -> None:
        self.outcomes[run or a.event, a.fn] = outcome
        self.skips.append((a.event, outcome.partition(" ")[0]))
        if not run and a.parent:
            self.told.append(a.parent)

    def start(self, run: str, arrivals: list[Arrival], trigger: Arrival, o: Options) -> bool:
        place = trigger.fn, trigger.key
        window = (
            ""
            if run == trigger.run and len(arrivals) == 1 and not o.batch | bool(o.debounce)
            else run
        )
        recent = [at for at in self.starts.get(place, ()) if at > self.now - o.period]
        holder = self.locks.get(place, "")
        if holder and self.runs[holder].st in ENDED:
            holder = ""
        outcome = ""
        if o.limit and len(recent) >= o.limit:
            outcome = "rate_limited"
        elif holder and o.singleton == "skip":
            outcome = f"skipped {holder}"
        if outcome:
            self.refuse(trigger, outcome, window)
            if window:
                self.told += [a.parent for a in arrivals if a.parent]
            return False
        parents = [a.parent for a in arrivals if a.parent]
        self.runs[run] = ModelRun(
            trigger.fn, [a.event for a in arrivals], trigger.event, parents, trigger.key
        )
        if o.limit:
            self.starts[place] = [*recent, self.now]
        if o.singleton == "cancel" and trigger.accepted < self.newest.get(place, 0):
            self.cancel(run)
        elif o.singleton:
            self.locks[place] = run
            self.newest[place] = trigger.accepted
            if holder:
                self.cancel(holder)
        return True

    def window(self, a: Arrival, o: Options, most: float) -> Window:
        place = a.fn, a.key
        w = self.windows.get(place)
        if w and (w.due <= self.now or len(w.arrivals) >= most):
            self.close(place)
            w = None
        if w is None:
            w = self.windows[place] = Window(
                a.window_run,
                self.now,
                self.now + o.batch_timeout,
                [],
                bool(o.batch) or o.collect,
            )
        if o.idempotent:
            w.orders.append(a.order)
            self.keys[a.fn, a.order] = (self.now + 864, w.run)
        return w

    def debounce(self, a: Arrival, o: Options) -> None:
        w = self.window(a, o, float("inf"))
        w.due = self.now + o.debounce
        if o.timeout:
            w.due = min(w.due, w.opened + o.timeout)
        w.arrivals.append(a)
        if not o.collect and len(w.arrivals) > 1:
            lost, kept = sorted(w.arrivals, key=lambda a: (a.ts, a.accepted))
            w.arrivals = [kept]
            if lost.parent:
                self.told.append(lost.parent)
        self.outcomes[a.event, a.fn] = f"debounced {w.run}"

    def batch(self, a: Arrival, o: Options) -> None:
        w = self.window(a, o, o.batch)
        w.arrivals.append(a)
        self.outcomes[a.event, a.fn] = f"batched {w.run}"
        if len(w.arrivals) >= o.batch:
            self.close((a.fn, a.key))

    def close(self, place: tuple[str, str]) -> None:
        w = self.windows.pop(place)
        o = self.options[place[0]]
        # However late some were handled.
        arrivals = sorted(w.arrivals, key=lambda a: (a.ts if o.collect else 0, a.accepted))
        trigger = arrivals[0] if o.batch else arrivals[-1]
        if not self.start(w.run, arrivals, trigger, o):
            for order in w.orders:
                if self.keys.get((place[0], order), (0.0, ""))[1] == w.run:
                    del self.keys[place[0], order]

    def cancel(self, run: str) -> None:
        found = self.runs[run]
        if found.st not in (*ENDED, "x"):
            found.st = "x" if found.leased else "k"
            if found.st == "k":
                self.end(run, "k")

    def end(self, run: str, st: str) -> None:
        found = self.runs[run]
        found.st = st
        if self.locks.get((found.fn, found.key)) == run:
            del self.locks[found.fn, found.key]
