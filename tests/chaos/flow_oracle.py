"""Did flow control hold? Outcomes as Redis has them and as the client tells them, holders as the witness saw them, starts as recorded."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import stepwell
from stepwell.ids import function_shard, run_id, ulid_ms
from stepwell.serde.values import unpack
from stepwell_engine.registry import Registry
from stepwell_engine.store.keys import spec_of
from stepwell_engine.store.store import Store
from tests.chaos import holders
from tests.chaos.bodies import APP
from tests.chaos.flow import SINCE_MS
from tests.chaos.flow_app import OPTIONS, TRIGGERS
from tests.chaos.oracle import Ended, finals
from tests.chaos.scenarios import Journal
from tests.chaos.witness import Line

REFUSED: Final = frozenset({"rate_limited", "duplicate", "skipped"})
GATHERED: Final = frozenset({"debounced", "batched"})
LEFT: Final = (
    *("slots", "permits", "kept", "parked", "parks", "asks", "singleton", "window", "gathered"),
    *("suspects", "resumes", "starts", "ready_keys", "ready_fns", "leases", "waits", "wait_paths"),
)
"""Keys of which none is there when all runs have ended."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an event came to for a function: `run` is that which `word` names, or its own."""

    event: str
    fn: str
    data: Mapping[str, Any]
    word: str
    run: str


@dataclass(slots=True)
class Case:
    """All there is to judge."""

    runs: dict[str, Ended]
    outcomes: list[Outcome]
    journal: Journal
    problems: list[str] = field(default_factory=list[str])

    def of(self, fn: str) -> dict[str, list[Ended]]:
        """The runs of a function by their `g`, by creation."""
        found: dict[str, list[Ended]] = defaultdict(list)
        for run in sorted(self.runs.values(), key=lambda run: run.run):
            if run.fn == fn:
                found[str(run.data.get("g"))].append(run)
        return found

    def told(self, fn: str) -> dict[str, list[Outcome]]:
        """The outcomes for a function by the `g` of the event."""
        found: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in self.outcomes:
            if outcome.fn == fn:
                found[outcome.data["g"]].append(outcome)
        return found

    def say(self, fn: str, what: str) -> None:
        """A problem."""
        self.problems.append(f"{fn}: {what}")


async def verify(
    store: Store, client: stepwell.Client, journal: Journal, lines: Sequence[Line]
) -> list[str]:
    """Everything that is wrong with flow control at the end, one line each."""
    runs = {run.run: run for run in await finals(store)}
    case = Case(runs, [], journal)
    if journal.flow:
        await _read_outcomes(store, client, case)
    for fn, judge in JUDGES.items():
        judge(case, fn)
    for fn in OPTIONS.keys() - {"replaced", "stopped", "tardy", "overdue"}:
        _all_complete(case, fn)
    _concurrent(case, lines)
    _skips(case)
    _ticks(case)
    await _leftovers(store, case)
    return case.problems


async def _read_outcomes(store: Store, client: stepwell.Client, case: Case) -> None:
    registry = Registry(store)
    await registry.refresh()
    for event_id, data in case.journal.flow.items():
        name = case.journal.sent[event_id][0]
        shown = await client.get_event(event_id)
        seen = {o.fn_id: (o.outcome, o.run_id) for o in shown.outcomes} if shown else {}
        for fn in TRIGGERS[name]:
            function = registry.find(APP, fn)
            assert function is not None
            shard = function_shard(APP, fn, len(store.shards))
            key = store.keys(shard).build("outcome", event_id)
            raw: bytes | None = await store.server.call(key, "HGET", key, function.number)
            own = run_id(ulid_ms(event_id), event_id, APP, fn, shard)
            word, _, other = (raw or b"").decode().partition(" ")
            if not word and own not in case.runs:
                case.say(fn, f"event {event_id} {data} came to nothing")
                continue
            if word and word not in GATHERED and own in case.runs:
                case.say(fn, f"event {event_id} has the outcome {word} {other}, and its run {own}")
            outcome = Outcome(event_id, fn, data, word or "started", other if word else own)
            case.outcomes.append(outcome)
            want = (outcome.word, outcome.run or None)
            if seen.get(fn) != want:
                case.say(fn, f"event {event_id} came to {want}, the client says {seen}")


def _all_complete(case: Case, fn: str) -> None:
    for runs in case.of(fn).values():
        for run in runs:
            if run.status != "c":
                case.say(fn, f"run {run.run} ended {run.status!r}: {run.fields.get(b'er')!r}")


def _concurrent(case: Case, lines: Sequence[Line]) -> None:
    seen = holders.bodies(case.runs, lines)
    for fns, limit in ((("keyed",), 1), (("crowd",), 3), (("shared-a", "shared-b"), 1)):
        by_key: dict[str, list[holders.Held]] = defaultdict(list)
        for fn in fns:
            for g, held in seen.get(fn, ()):
                by_key[g].append(held)
        for g, held_of in by_key.items():
            count, who = holders.most(held_of)
            if count > limit:
                case.say(fns[0], f"key {g}: {count} bodies at once, the limit is {limit}: {who}")
    count, who = holders.most([held for _, held in seen.get("crowd", ())])
    if count > 8:
        case.say("crowd", f"{count} bodies at once, the limit is 8: {who}")
    for fn in ("held", "tardy", "ranked", "single", "lone", "replaced"):
        for g, runs in case.of(fn).items():
            count, who = holders.most(holders.spans(runs))
            if count > 1:
                case.say(fn, f"key {g}: {count} runs at once: {who}")


# What each option is for


def _throttle(case: Case, fn: str) -> None:
    option = OPTIONS[fn]["throttle"]
    interval = option.period_ms / option.limit
    for g, runs in case.of(fn).items():
        starts = sorted(int(run.fields[b"sa"]) for run in runs if b"sa" in run.fields)
        for i, first in enumerate(starts):
            for j in range(i + 1, len(starts)):
                # Each is rounded to a ms.
                most = option.burst + (starts[j] - first + 1) // interval
                if j - i + 1 > most:
                    text = f"{j - i + 1} starts in {starts[j] - first} ms, {most:g} are allowed"
                    case.say(fn, f"key {g}: {text}: {starts}")


def _one_a_key(case: Case, fn: str) -> None:
    """A rate of one, or idempotency: one event has the run, the others another outcome."""
    word = "rate_limited" if fn == "rated" else "duplicate"
    runs = case.of(fn)
    for g, outcomes in case.told(fn).items():
        if len(runs.get(g, ())) != 1:
            case.say(fn, f"key {g}: {len(runs.get(g, ()))} runs")
            continue
        (run,) = runs[g]
        named = run.run if word == "duplicate" else ""
        for o in outcomes:
            if (o.word, o.run) not in ((word, named), ("started", run.run)):
                case.say(
                    fn, f"event {o.event} came to {o.word} {o.run}; the key's run is {run.run}"
                )


def _gathered(case: Case, fn: str) -> None:
    """Each event is in one run, which has all the events that say so, in order."""
    windows: dict[str, list[Outcome]] = defaultdict(list)
    for outcomes in case.told(fn).values():
        for o in outcomes:
            windows[o.run].append(o)
            if o.word not in GATHERED:
                case.say(fn, f"event {o.event} came to {o.word}, not into a window")
    times: Counter[str] = Counter()
    known = {data["key"] for data in case.journal.flow.values()}
    for runs in case.of(fn).values():
        for run in runs:
            keys = run.output["keys"] if run.status == "c" else []
            times.update(keys)
            # Of events whose send was not answered nothing is known.
            keys = [key for key in keys if key in known]
            told = sorted(windows.pop(run.run, ()), key=lambda o: o.event)
            want = [o.data["key"] for o in told]
            if fn in ("sized", "timed", "heap"):
                keys, want = sorted(keys), sorted(want)
            elif fn == "bounced" and keys:
                want = want[-1:]
            if keys != want:
                case.say(fn, f"run {run.run} has the events {keys}, those that say so are {want}")
            most = OPTIONS[fn]["batch_events"].max_size if "batch_events" in OPTIONS[fn] else 99
            if len(keys) > most:
                case.say(fn, f"run {run.run} has {len(keys)} events")
    for key, count in times.items():
        if count > 1:
            case.say(fn, f"the event with key {key} is in {count} runs")
    for run_of, told in windows.items():
        case.say(fn, f"{len(told)} events say they are in run {run_of}, which is not there")


def _singleton(case: Case, fn: str) -> None:
    for outcomes in case.told(fn).values():
        for o in outcomes:
            if o.word == "started":
                continue
            holder = case.runs.get(o.run)
            if o.word != "skipped" or holder is None or holder.fn != fn:
                case.say(fn, f"event {o.event} came to {o.word} {o.run}")
            elif int(holder.fields[b"ea"]) < ulid_ms(o.event):
                case.say(fn, f"event {o.event} was skipped for {o.run}, which had ended before")


def _replaced(case: Case, fn: str) -> None:
    for g, runs in case.of(fn).items():
        for run in runs:
            if run.status == "k" and "a newer run" not in _message(run):
                case.say(fn, f"run {run.run} was cancelled: {_message(run)}")
        if [run.status for run in runs].count("c") != 1:
            case.say(fn, f"key {g}: runs ended {[run.status for run in runs]}")


def _stopped(case: Case, fn: str) -> None:
    sent = case.journal.sent
    stops = {
        data["g"] for event, data in case.journal.flow.items() if sent[event][0] == "chaos/stop"
    }
    for g, runs in case.of(fn).items():
        for run in runs:
            if run.status == "k" and "chaos/stop" not in _message(run):
                case.say(fn, f"run {run.run} was cancelled: {_message(run)}")
            if run.status != "k" and g in stops:
                case.say(fn, f"run {run.run} ended {run.status!r}, though it was to be stopped")


def _timed_out(case: Case, fn: str) -> None:
    which = "start" if fn == "tardy" else "finish"
    for runs in case.of(fn).values():
        for run in runs:
            began = b"sa" in run.fields
            if run.status == "k" and (
                f"timeouts: {which}" not in _message(run) or began == (which == "start")
            ):
                case.say(fn, f"run {run.run} was cancelled, begun {began}: {_message(run)}")
            if run.status != "k" and fn == "overdue":
                case.say(fn, f"run {run.run} ended {run.status!r}")
    for outcomes in case.told(fn).values():
        # The second of a drive finds its place taken.
        for o in outcomes:
            found = case.runs.get(o.run)
            if (
                o.data.get("free")
                and found is not None
                and found.status != "k"
                and not _freed(case, o)
            ):
                case.say(fn, f"run {found.run} began though its key was taken")


def _freed(case: Case, o: Outcome) -> bool:
    """Whether the run that was to hold its key had ended, or never begun, by a second after the event."""
    others = [r for r in case.of(o.fn)[o.data["g"]] if not r.data.get("free")]
    return any(
        b"sa" not in run.fields or int(run.fields[b"ea"]) <= ulid_ms(o.event) + 1_000
        for run in others
    )


def _ranked(case: Case, fn: str) -> None:
    for g, runs in case.of(fn).items():
        holding = [run for run in runs if not run.data.get("free")]
        others = [run for run in runs if run.data.get("free")]
        if any(int(run.fields[b"ea"]) - int(run.fields[b"sa"]) > 19_000 for run in holding):
            continue  # it waited no longer: the others may have begun one by one
        order = sorted(others, key=lambda run: int(run.fields[b"sa"]))
        ranks = [run.data["rank"] for run in order]
        if ranks != sorted(ranks, reverse=True):
            case.say(fn, f"key {g}: began in the order of ranks {ranks}")


JUDGES: Final[dict[str, Callable[[Case, str], None]]] = {
    **dict.fromkeys(("throttled", "gush"), _throttle),
    **dict.fromkeys(("rated", "once"), _one_a_key),
    **dict.fromkeys(("bounced", "collected", "sized", "timed", "heap"), _gathered),
    **dict.fromkeys(("single", "lone"), _singleton),
    "replaced": _replaced,
    "stopped": _stopped,
    "tardy": _timed_out,
    "overdue": _timed_out,
    "ranked": _ranked,
}


def _message(run: Ended) -> str:
    return str(unpack(run.fields[b"er"]).get("message")) if b"er" in run.fields else ""


# The rest


def _skips(case: Case) -> None:
    """Each refusal is told once."""
    told: Counter[tuple[str, str]] = Counter()
    for run in case.runs.values():
        if run.fn == "told":
            told[run.data["fn_id"], run.data["event"]["data"]["key"]] += 1
    refused = {(o.fn, o.data["key"]) for o in case.outcomes if o.word in REFUSED}
    for fn, key in refused - told.keys():
        case.say(fn, f"nobody was told that the event with key {key} was refused")
    known = {data["key"] for data in case.journal.flow.values()}
    for (fn, key), count in told.items():
        if count > 1 or (key in known and (fn, key) not in refused):
            case.say(fn, f"{count} times told that the event with key {key} was refused")


def _ticks(case: Case) -> None:
    """Each new year since the cron was set back has one run."""
    if not case.journal.yearly:
        return
    years = range(datetime.fromtimestamp(SINCE_MS / 1000, UTC).year + 1, datetime.now(UTC).year + 1)
    want = [f"{year}-01-01T00:00:00Z" for year in years]
    have = sorted(run.data["scheduledAt"] for run in case.runs.values() if run.fn == "yearly")
    if have != want:
        case.say("yearly", f"ticks {have}, not {want}")


async def _leftovers(store: Store, case: Case) -> None:
    call = store.server.call
    for shard in store.shards:
        cursor, root = b"0", shard.keys.root
        while True:
            cursor, page = await call(root, "SCAN", cursor, "MATCH", root + ":*", "COUNT", 1000)
            for raw in page:
                spec = spec_of(raw.decode())
                if spec is None or spec.name not in LEFT:
                    continue
                # A lock with a TTL is nobody's: it tells what was newest.
                if spec.name != "singleton" or await call(root, "PTTL", raw) < 0:
                    case.problems.append(f"left behind: {raw.decode()}, {spec.holds}")
            if cursor == b"0":
                break
