"""What a function's due crons come to: which missed ticks are made up for, the runs they start, and the state after it.

Pure: the state as read and a moment in, what `tick.lua` writes out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Literal

from stepwell.errors import ConfigError
from stepwell.events import Event, encode_event
from stepwell.ids import event_entropy, run_id, ulid_time_chars
from stepwell_engine.cron import Schedule, cron_identity, parse_cron
from stepwell_engine.entries import USER, Entry
from stepwell_engine.limits.event_keys import KeyFault
from stepwell_engine.planning import Plan, Work, start_row
from stepwell_engine.store.transitions import NewRun
from stepwell_engine.triggers import RegisteredFunction, Route

EVENT_NAME: Final = "inngest/scheduled.timer"
ON_TIME_MS: Final = 60_000
"""With catchup="none", a tick found later than this after its moment is missed."""
MOST_MISSED: Final = 1_000
"""With catchup="all", the newest so many missed ticks of a cron run; older ones are left out."""
AGAIN_MS: Final = 60_000
"""When a function is looked at again whose crons can't be read here."""

_CHUNK: Final = 50  # ticks of one cron a write: the rest stays due
_FAR_MS: Final = 10 * 366 * 86_400_000
_ROUTE: Final = Route(len(EVENT_NAME))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Catchup = Literal["none", "last", "all"]
State = Mapping[str, bytes]
"""Of each cron (its schedule's identity): 13 digits of ms up to which its ticks are handled, then the last run, if any."""


@dataclass(frozen=True, slots=True)
class Cron:
    """One cron trigger of a function. `text` is as its author wrote it; `schedule` is None when it can't be read here."""

    identity: str
    text: str
    schedule: Schedule | None
    jitter_ms: int = 0
    catchup: Catchup = "last"


@dataclass(frozen=True, slots=True)
class TickPlan:
    """What one call of tick.lua does.

    `skipped`: missed ticks left out, as far as they were counted. `faults`: keys of options that had no value. `keep_ms` as of a Plan.
    """

    after: dict[str, bytes]
    next_ms: int
    records: Sequence[tuple[str, bytes]] = ()
    runs: Sequence[NewRun] = ()
    fired: Sequence[int] = ()
    skipped: int = 0
    faults: Sequence[KeyFault] = ()
    keep_ms: int = 0


def crons(config: Mapping[str, Any]) -> list[Cron]:
    """The cron triggers in a function's config, each schedule once."""
    found: dict[str, Cron] = {}
    for trigger in config.get("triggers") or ():
        text, timezone = trigger.get("cron"), trigger.get("timezone")
        if not isinstance(text, str) or not text:
            continue
        jitter_ms = 0
        try:
            schedule = parse_cron(text, timezone)
            jitter_ms = max(0, int(trigger.get("jitter") or 0))
        except (ConfigError, ValueError, TypeError):
            schedule = None
        identity = cron_identity(text, timezone)
        found.setdefault(identity, Cron(identity, text, schedule, jitter_ms, _catchup(trigger)))
    return list(found.values())


def _catchup(trigger: Mapping[str, Any]) -> Catchup:
    found = trigger.get("catchup")
    return found if found in ("none", "all") else "last"


def handled_ms(value: bytes) -> int:
    """The moment in a state's value up to which ticks are handled."""
    return int(value[:13])


def last_run(value: bytes) -> str | None:
    """The run in a state's value: that of the last tick which started one."""
    return value[13:].decode() or None


def plan_ticks(function: RegisteredFunction, state: State, now_ms: int) -> TickPlan:
    """Decide a function's crons at `now_ms`. A cron seen for the first time has missed nothing.

    Long rows of missed ticks are planned in parts: `next_ms` is in the past as long as some are left.
    """
    after: dict[str, bytes] = {}
    due: dict[int, Cron] = {}
    following: list[int] = []
    skipped = 0
    for cron in crons(function.config):
        known = state.get(cron.identity)
        if cron.schedule is None:
            # Perhaps another coordinator can: it knows the zone, or is of a later version.
            after[cron.identity] = known or b"%013d" % now_ms
            following.append(now_ms + AGAIN_MS)
            continue
        last = now_ms if known is None else handled_ms(known)
        ticks, last, left_out = _missed(cron.schedule, cron.catchup, last, now_ms)
        for tick in ticks:
            due.setdefault(tick, cron)
        skipped += left_out
        run = _run_id(function, ticks[-1]).encode() if ticks else (known or b"")[13:]
        after[cron.identity] = b"%013d" % last + run
        following.append(cron.schedule.next_ms(last) or now_ms + _FAR_MS)
    started = [start(function, due[tick], tick, now_ms) for tick in sorted(due)]
    return TickPlan(
        after=after,
        next_ms=min(following, default=0),
        records=[(plan.work.entry.id, plan.record()) for plan in started],
        runs=[run for plan in started for run in plan.runs(function.shard)],
        fired=sorted(due),
        skipped=skipped,
        faults=[fault for plan in started for _, fault in plan.faults],
        keep_ms=max((plan.keep_ms for plan in started), default=0),
    )


def _missed(
    schedule: Schedule, catchup: Catchup, last_ms: int, now_ms: int
) -> tuple[list[int], int, int]:
    """Of the ticks since `last_ms`: those that run, up to where all are handled then, how many are left out."""
    missed = schedule.between(last_ms, now_ms, MOST_MISSED)
    if not missed:
        return [], last_ms, 0
    if catchup == "all":
        part = missed[:_CHUNK]
        return part, part[-1], 0
    since = now_ms - ON_TIME_MS
    ticks = missed[-1:] if catchup == "last" or missed[-1] > since else []
    return ticks, missed[-1], len(missed) - len(ticks)


def start(function: RegisteredFunction, cron: Cron, tick_ms: int, now_ms: int) -> Plan:
    """What a tick comes to, as an event would. The same however often it is worked out, flow control's keys aside."""
    event_id = _event_id(function, tick_ms)
    fire_ms = tick_ms + jitter(function, cron.jitter_ms, tick_ms)
    data = {"cron": cron.text, "scheduledAt": rfc3339(tick_ms), "fireAt": rfc3339(fire_ms)}
    # A `ts` later than the event's own moment is a start that waits for it, as of any event.
    encoded = encode_event(Event(EVENT_NAME, data, ts=fire_ms))
    entry = Entry(b"", USER, event_id, EVENT_NAME, tick_ms * 1000, encoded)
    work = Work(entry, _ROUTE, function.shard)
    if "batch" in function.config:
        # A tick is a moment of its own: it is not gathered.
        kept = {name: option for name, option in function.config.items() if name != "batch"}
        function = replace(function, config=kept)
    return Plan(work, [start_row(function, work, event_id[:10], now_ms)])


def _event_id(function: RegisteredFunction, tick_ms: int) -> str:
    app, fn = function.app, function.fn
    return ulid_time_chars(tick_ms) + event_entropy(f"cron\0{len(app)}\0{app}\0{fn}", 0)


def _run_id(function: RegisteredFunction, tick_ms: int) -> str:
    app, fn = function.app, function.fn
    return run_id(tick_ms, _event_id(function, tick_ms), app, fn, function.shard)


def jitter(function: RegisteredFunction, most_ms: int, tick_ms: int) -> int:
    """How much later than its tick a run starts: 0 to `most_ms`, a hash of function and tick.

    >>> 0 <= jitter(function, 30_000, 1_774_252_800_000) <= 30_000
    True
    """
    causes = f"{len(function.app)}\0{function.app}\0{function.fn}\0{tick_ms}".encode()
    return int.from_bytes(blake2b(causes, digest_size=8).digest(), "big") % (most_ms + 1)


def rfc3339(ms: int) -> str:
    """A moment in UTC, with milliseconds where there are any.

    >>> rfc3339(1_774_252_800_000)
    '2026-03-23T08:00:00Z'
    """
    at = (_EPOCH + timedelta(milliseconds=ms)).replace(tzinfo=None)
    return at.isoformat(timespec="milliseconds" if ms % 1000 else "seconds") + "Z"
