"""Draws the pictures of these pages from real runs: `python docs/flow/pictures.py` writes one SVG for each option.

Each scenario sends events to a real engine with a virtual clock and reads back what came of them. The test suite draws them too, and
checks each option's rule on the data.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from stepwell import (
    Batch,
    Cancel,
    Client,
    Concurrency,
    Context,
    Debounce,
    Event,
    Priority,
    RateLimit,
    Run,
    Singleton,
    Throttle,
    Timeouts,
    TriggerCron,
    TriggerEvent,
)
from stepwell.testing import Engine

HERE: Final = Path(__file__).parent
START: Final = datetime(2030, 1, 7, tzinfo=UTC)
_EVENT: Final = "t/go"


@dataclass(frozen=True, slots=True)
class Sent:
    """An event: when (whole minutes from the start), of which key, what became of it."""

    minute: int
    key: str
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """A run: begun and ended when (minutes; None = not), of which key, over how many events, ended how."""

    key: str
    created: int
    begun: int | None
    ended: int | None
    status: str
    events: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened, in order of time."""

    sent: Sequence[Sent]
    runs: Sequence[Started]

    def of(self, key: str) -> "Trace":
        """Only what has that key."""
        return Trace([s for s in self.sent if s.key == key], [r for r in self.runs if r.key == key])

    @property
    def starts(self) -> list[int]:
        """When runs began."""
        return sorted(run.begun for run in self.runs if run.begun is not None)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to do: `sends` are (minute, event data), all of name t/go unless they say otherwise; runs sleep for `data.sleep`.

    `away`: from when to when no coordinator runs.
    """

    title: str
    minutes: int
    options: Mapping[str, Any]
    sends: Sequence[tuple[int, Mapping[str, Any]]] = ()
    tick: int = 10
    unit: int = 1
    away: tuple[int, int] | None = None
    trigger: Any = field(default_factory=lambda: TriggerEvent(_EVENT))


def _at(minutes: Sequence[int], **data: Any) -> list[tuple[int, Mapping[str, Any]]]:
    return [(minute, data) for minute in minutes]


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "concurrency": Scenario(
        'Concurrency(limit=2, key="event.data.key", level="run"), runs of 10 minutes',
        50,
        {"concurrency": Concurrency(limit=2, key="event.data.key", level="run")},
        [*_at([0] * 7, key="a", sleep="10m"), *_at([5, 5], key="b", sleep="10m")],
    ),
    "throttle": Scenario(
        'Throttle(limit=6, period="1h", burst=3): one each 10 minutes, three at once after a rest',
        120,
        {"throttle": Throttle(limit=6, period="1h", burst=3)},
        [*_at([0] * 8), *_at([90] * 4)],
    ),
    "rate-limit": Scenario(
        'RateLimit(limit=3, period="1h"), an event every 9 minutes',
        180,
        {"rate_limit": RateLimit(limit=3, period="1h")},
        _at(range(0, 180, 9)),
        tick=30,
    ),
    "idempotency": Scenario(
        'idempotency="event.data.key": one run a day and key',
        60 * 54,
        {"idempotency": "event.data.key"},
        [
            *_at([0, 120, 60 * 23, 60 * 25, 60 * 48, 60 * 50], key="a"),
            *_at([60 * 5, 60 * 6], key="b"),
        ],
        tick=60 * 6,
        unit=60,
    ),
    "debounce": Scenario(
        'Debounce(period="10m", timeout="30m"): a burst, then a stream that does not pause',
        120,
        {"debounce": Debounce(period="10m", timeout="30m")},
        _at([0, 4, 8, *range(40, 90, 4)]),
    ),
    "batch": Scenario(
        'Batch(max_size=5, timeout="10m"): full at the fifth event, or ten minutes after the first',
        60,
        {"batch_events": Batch(max_size=5, timeout="10m")},
        _at([0, 1, 2, 3, 4, 20, 23, 26, 45]),
    ),
    "priority": Scenario(
        "Priority(run=\"event.data.key == 'pro' ? 3600 : 0\") behind a throttle of one each 10 minutes",
        80,
        {
            "priority": Priority(run="event.data.key == 'pro' ? 3600 : 0"),
            "throttle": Throttle(limit=6, period="1h"),
        },
        [*_at([0] * 6, key="free"), *_at([15, 25], key="pro")],
    ),
    "singleton": Scenario(
        'Singleton(mode="skip"), runs of 20 minutes',
        80,
        {"singleton": Singleton(mode="skip")},
        _at([0, 5, 15, 30, 40, 60], sleep="20m"),
    ),
    "singleton-cancel": Scenario(
        'Singleton(mode="cancel"), runs of 20 minutes',
        80,
        {"singleton": Singleton(mode="cancel")},
        _at([0, 5, 15, 40, 55], sleep="20m"),
    ),
    "cron": Scenario(
        'TriggerCron("*/15 * * * *"), catchup="last"; nothing ran from minute 40 to 100',
        145,
        {},
        trigger=TriggerCron("*/15 * * * *"),
        tick=15,
        away=(40, 100),
    ),
    "cancel": Scenario(
        'Cancel("t/stop", match="data.key", timeout="30m"), runs of an hour',
        70,
        {"cancel": Cancel("t/stop", match="data.key", timeout="30m")},
        [
            *(each for key in "abc" for each in _at([0], key=key, sleep="1h")),
            *_at([20], key="b", name="t/stop"),
            *_at([40], key="c", name="t/stop"),
        ],
    ),
    "timeouts": Scenario(
        'Timeouts(start="10m", finish="30m"), one run at a time',
        70,
        {
            "timeouts": Timeouts(start="10m", finish="30m"),
            "concurrency": Concurrency(limit=1, level="run"),
        },
        [(0, {"sleep": "20m"}), (5, {"sleep": "5m"}), (15, {"sleep": "1h"}), (55, {"sleep": "5m"})],
    ),
}


# --- from a scenario to what happened ---


async def trace(scenario: Scenario) -> Trace:
    """Run a scenario on a real engine; minutes are those of its virtual clock."""
    client = Client(app_id="pictures")

    @client.create_function(fn_id="f", trigger=scenario.trigger, **scenario.options)
    async def f(ctx: Context) -> None:
        if sleep := ctx.event.data.get("sleep"):
            await ctx.step.sleep("sleep", sleep)

    async with Engine(client, start=START) as engine:
        ids: list[tuple[int, Mapping[str, Any], str]] = []
        stops: list[tuple[int, Callable[[], Awaitable[None]]]] = []
        for minute, data in scenario.sends:

            async def send(minute: int = minute, data: Mapping[str, Any] = data) -> None:
                plain = {name: value for name, value in data.items() if name != "name"}
                found = await engine.send(Event(data.get("name", _EVENT), plain))
                ids.append((minute, data, found[0]))
                await engine.settle()

            stops.append((minute, send))
        for minute, do in sorted(stops, key=lambda stop: stop[0]):
            await _pass(engine, minute)
            await do()
        if scenario.away:
            await _pass(engine, scenario.away[0])
            await engine.stop_coordinator()
            engine.clock.offset_ms += _left(engine, scenario.away[1])
            await engine.start_coordinator()
        await _pass(engine, scenario.minutes)
        sent = [
            Sent(minute, str(data.get("key", "")), await _outcome(engine, event_id))
            for minute, data, event_id in ids
        ]
        runs = [_started(run) for run in await engine.runs()]
        # So that nothing is left behind that waits.
        await _pass(engine, scenario.minutes + 60 * 24)
    return Trace(sorted(sent, key=lambda s: s.minute), sorted(runs, key=_order))


def _order(run: Started) -> tuple[int, int, str]:
    return run.begun if run.begun is not None else run.created, run.created, run.key


async def _pass(engine: Engine, minute: int) -> None:
    left = _left(engine, minute)
    if left > 0:
        await engine.advance(left)


def _left(engine: Engine, minute: int) -> int:
    return int(START.timestamp() * 1000) + minute * 60_000 - engine.clock.now_ms()


async def _outcome(engine: Engine, event_id: str) -> str:
    return " ".join(o.outcome for o in (await engine.event(event_id)).outcomes)


def _started(run: Run) -> Started:
    data = run.events[0].data if run.events else {}
    created = _minute(run.created_at)
    assert created is not None
    return Started(
        str(data.get("key", "")),
        created,
        _minute(run.started_at),
        _minute(run.ended_at),
        str(run.status),
        len(run.events),
    )


def _minute(at: datetime | None) -> int | None:
    """The minute it falls in: the seconds that the machine itself took don't count."""
    return None if at is None else int((at - START).total_seconds() // 60)


# --- from what happened to a picture ---

_LEFT, _RIGHT, _TOP, _ROW, _WIDTH = 96, 20, 44, 15, 720
_GREY, _BLUE, _RED, _INK = "#8a94a3", "#2f6fdb", "#c8402f", "#20262e"
_DROPPED: Final = frozenset({"rate_limited", "duplicate", "skipped"})


class _Canvas:
    """Lines of SVG; x is in minutes."""

    def __init__(self, scenario: Scenario) -> None:
        self._scale = (_WIDTH - _LEFT - _RIGHT) / scenario.minutes
        self.lines: list[str] = []

    def x(self, minute: float) -> str:
        return f"{_LEFT + minute * self._scale:.1f}"

    def text(self, x: str, y: int, words: str, *, anchor: str = "start", color: str = _INK) -> None:
        safe = words.replace("&", "&amp;").replace("<", "&lt;")
        self.lines.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{color}">{safe}</text>'
        )

    def bar(self, start: int, end: int, y: int, color: str) -> None:
        width = max((end - start) * self._scale, 1.0)
        self.lines.append(
            f'<rect x="{self.x(start)}" y="{y - 4}" width="{width:.1f}" height="8" fill="{color}" opacity="0.35"/>'
        )

    def line(self, x1: str, y1: int, x2: str, y2: int, color: str) -> None:
        self.lines.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}"/>')

    def dot(self, minute: int, y: int, color: str, *, hollow: bool = False) -> None:
        fill = "#ffffff" if hollow else color
        self.lines.append(
            f'<circle cx="{self.x(minute)}" cy="{y}" r="4" fill="{fill}" stroke="{color}"/>'
        )

    def cross(self, minute: int, y: int) -> None:
        x = float(self.x(minute))
        d = f"M{x - 3.5:.1f} {y - 3.5}l7 7m0 -7l-7 7"
        self.lines.append(f'<path d="{d}" stroke="{_RED}" stroke-width="1.8" fill="none"/>')


def svg(scenario: Scenario, found: Trace) -> str:
    """The picture: events above (red: dropped), runs below (dot: began, bar: until its end, cross: cancelled)."""
    canvas = _Canvas(scenario)
    y = _TOP
    for key in dict.fromkeys(s.key for s in found.sent):
        y = _events(canvas, y, f"events {key}".rstrip(), [s for s in found.sent if s.key == key])
    y += 6
    for key in dict.fromkeys(run.key for run in found.runs):
        y = _runs(
            canvas, y, f"runs {key}".rstrip(), [r for r in found.runs if r.key == key], scenario
        )
    _axis(canvas, y, scenario)
    height = y + 30
    canvas.text("12", 20, scenario.title)
    body = "\n".join(canvas.lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _events(canvas: _Canvas, y: int, label: str, sent: Sequence[Sent]) -> int:
    """Events of one minute stand one above the other."""
    canvas.text("12", y + 4, label, color=_GREY)
    depth: dict[int, int] = {}
    for each in sent:
        level = depth[each.minute] = depth.get(each.minute, -1) + 1
        canvas.dot(
            each.minute, y + level * 9, _RED if each.outcome in _DROPPED else _GREY, hollow=True
        )
    return y + max(depth.values(), default=0) * 9 + 20


def _runs(canvas: _Canvas, y: int, label: str, runs: Sequence[Started], scenario: Scenario) -> int:
    """Each run takes the first row that is free at its time."""
    canvas.text("12", y + 4, label, color=_GREY)
    rows: list[float] = []
    for run in runs:
        start = run.created if run.begun is None else run.begun
        end = scenario.minutes if run.ended is None else run.ended
        gap = 10 / (_WIDTH - _LEFT - _RIGHT) * scenario.minutes
        row = next((i for i, free in enumerate(rows) if free < start), len(rows))
        cut = run.status == "cancelled"  # its cross needs room
        rows[row : row + 1] = [max(end + gap if cut else end - 0.5, start + gap * (end == start))]
        at = y + row * _ROW
        if run.begun is None:
            canvas.line(canvas.x(start), at, canvas.x(end), at, _GREY)
        else:
            if end > start:
                canvas.bar(start, end, at, _BLUE)
            canvas.dot(start, at, _BLUE)
            if run.events > 1:
                canvas.text(canvas.x(start + gap * 0.7), at + 4, f"x{run.events}", color=_BLUE)
        if run.status == "cancelled":
            canvas.cross(end, at)
    return y + len(rows) * _ROW + 6


def _axis(canvas: _Canvas, y: int, scenario: Scenario) -> None:
    canvas.line(canvas.x(0), y, canvas.x(scenario.minutes), y, _INK)
    for minute in range(0, scenario.minutes + 1, scenario.tick):
        canvas.line(canvas.x(minute), y, canvas.x(minute), y + 4, _INK)
        canvas.text(canvas.x(minute), y + 17, str(minute // scenario.unit), anchor="middle")
    canvas.text("12", y + 17, "hours" if scenario.unit == 60 else "minutes", color=_GREY)


async def main(names: Sequence[str]) -> None:
    """Draw the pictures of those names, or all."""
    for name in names or SCENARIOS:
        found = await trace(SCENARIOS[name])
        (HERE / f"{name}.svg").write_text(svg(SCENARIOS[name], found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
