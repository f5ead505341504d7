"""One run with a hundred parallel steps: from its lease to its recorded end, in an idle system."""

import asyncio
from collections.abc import Iterator
from typing import Any

from redis import Redis

import stepwell
from stepwell_engine.store.keys import Keys
from tests.benchmarks.bench import Bench, Goal, Row
from tests.benchmarks.fleet import Fleet

from . import program

STEPS = 100
RUNS = 30
GAP = 0.1
WARM = 5
"""First runs left out: they pay for imports and connections that open on first use."""


def make_client(url: str, _: Any = None) -> stepwell.Client:
    """A client with one function of `STEPS` no-op steps under one `asyncio.gather`."""
    client = stepwell.Client(app_id="bench", redis_url=url)

    @client.create_function(fn_id="run", trigger=stepwell.TriggerEvent(event=program.EVENT))
    async def run(ctx: stepwell.Context) -> None:
        branches = (ctx.step.run(f"branch-{n}", program.nothing) for n in range(STEPS))
        await asyncio.gather(*branches)

    return client


def durations(url: str) -> list[int]:
    """Milliseconds of each run by the server's clock, in the order of their start."""
    with Fleet(workers=1) as fleet:
        fleet.servant(program.coordinator, url)
        fleet.worker(program.worker, url, None, make_client)
        fleet.producer(program.trickler, url, RUNS, GAP)
        fleet.run(RUNS)
    keys = Keys("stepwell", 0)
    with Redis.from_url(url, protocol=2) as redis:
        rows: list[Any] = [
            redis.hmget(key, ["sa", "ea"]) for key in redis.scan_iter(keys.run("*"), count=1000)
        ]
    times = sorted((int(started), int(ended)) for started, ended in rows)
    return [ended - started for started, ended in times]


def section(bench: Bench) -> Iterator[Row]:
    """Row `parallel/100 steps` in ms."""
    with bench.server() as url:
        samples = durations(url)[WARM:]
    goal = Goal("<=", 50, of="value")
    yield Row.of("parallel", f"{STEPS} steps", "ms", samples, lower=True, goal=goal)
