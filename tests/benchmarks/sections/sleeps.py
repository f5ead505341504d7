"""A thousand sleeps of one second that end at about the same time: how late the code after them goes on."""

import statistics
import time
from collections.abc import Iterator
from ctypes import c_longlong
from multiprocessing.sharedctypes import RawArray
from typing import Any

import stepwell

from ..bench import Bench, Goal, Row
from ..fleet import Fleet
from . import program

RUNS = 1_000
SLEEP_MS = 1_000


def make_client(url: str, marks: Any = None) -> stepwell.Client:
    """A client whose function sleeps; `marks` gets, for each run, when it fell asleep and when it went on (ns)."""
    client = stepwell.Client(app_id="bench", redis_url=url)

    @client.create_function(fn_id="run", trigger=stepwell.TriggerEvent(event=program.EVENT))
    async def run(ctx: stepwell.Context) -> None:
        at = 2 * ctx.event.data["number"]
        # The lines before a sleep run again after it.
        marks[at] = marks[at] or time.monotonic_ns()
        await ctx.step.sleep("nap", SLEEP_MS)
        marks[at + 1] = time.monotonic_ns()

    return client


def lateness(url: str, runs: int) -> list[float]:
    """Milliseconds from the end of each sleep, as its caller counts it, to the line after it."""
    marks = RawArray(c_longlong, 2 * runs)
    with Fleet(workers=1) as fleet:
        fleet.servant(program.coordinator, url)
        fleet.worker(program.worker, url, marks, make_client)
        fleet.producer(program.producer, url, runs, 0)
        fleet.run(runs)
    slept = zip(marks[0::2], marks[1::2], strict=True)
    return sorted((woke - began) / 1e6 - SLEEP_MS for began, woke in slept)


def section(bench: Bench) -> Iterator[Row]:
    """Rows `sleeps/p50` and `sleeps/p99` in ms."""
    halves: list[float] = []
    tails: list[float] = []
    for _ in range(bench.repeat):
        with bench.server() as url:
            late = statistics.quantiles(lateness(url, RUNS), n=100)
        halves.append(late[49])
        tails.append(late[98])
    goal = Goal("<=", 20, of="value")
    yield Row.of("sleeps", "late p50", "ms", halves, lower=True, goal=goal)
    yield Row.of("sleeps", "late p99", "ms", tails, lower=True)
