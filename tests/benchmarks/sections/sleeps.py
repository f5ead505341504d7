"""A thousand sleeps of one second that end at about the same time: how late the code after them goes on."""

import statistics
import time
from collections.abc import Iterator
from ctypes import c_longlong
from multiprocessing.sharedctypes import RawArray
from typing import Any

from redis import Redis

import stepwell
from stepwell_engine.entries import blob_event
from stepwell_engine.store.keys import Keys
from tests.benchmarks.bench import Bench, Goal, Row
from tests.benchmarks.fleet import Fleet

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
        marks[at] = marks[at] or time.time_ns()
        await ctx.step.sleep("nap", SLEEP_MS)
        marks[at + 1] = time.time_ns()

    return client


def lateness(url: str, runs: int) -> tuple[list[float], list[float]]:
    """Milliseconds by which the line after each sleep ran too late, sorted: after the sleep's due time, and as its caller counts."""
    marks = RawArray(c_longlong, 2 * runs)
    with Fleet(workers=1) as fleet:
        fleet.servant(program.coordinator, url)
        fleet.worker(program.worker, url, marks, make_client)
        fleet.producer(program.producer, url, runs, 0)
        fleet.run(runs)
    parked = _parked(url)
    begun, woken = list(marks[0::2]), list(marks[1::2])
    due = [woken[number] / 1e6 - SLEEP_MS - at for number, at in parked.items()]
    called = [(woke - began) / 1e6 - SLEEP_MS for began, woke in zip(begun, woken, strict=True)]
    return sorted(due), sorted(called)


def _parked(url: str) -> dict[int, int]:
    """When the server registered each run's sleep, ms: its history's line `S<ms>`, of the same write."""
    with Redis.from_url(url, protocol=2) as redis:
        rows: list[Any] = [
            redis.hmget(key, ["e", "h"])
            for key in redis.scan_iter(Keys("stepwell", 0).run("*"), count=1000)
        ]
    return {
        blob_event(blob, 0).data["number"]: int(history.partition(b"\nS")[2].split()[0])
        for blob, history in rows
    }


def section(bench: Bench) -> Iterator[Row]:
    """Rows `sleeps/late p50|p99`, and `sleeps/since the call p50`, which also counts the way to the server, in ms."""
    found: dict[str, list[float]] = {"late p50": [], "late p99": [], "since the call p50": []}
    for _ in range(bench.repeat):
        with bench.server() as url:
            due, called = lateness(url, RUNS)
        percents = statistics.quantiles(due, n=100)
        for samples, value in zip(
            found.values(), (percents[49], percents[98], statistics.median(called)), strict=True
        ):
            samples.append(value)
    for name, samples in found.items():
        goal = Goal("<=", 20, of="value") if name == "late p50" else None
        yield Row.of("sleeps", name, "ms", samples, lower=True, goal=goal)
