"""What an idle process asks of the server: commands a second, as the server hears them."""

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from redis import Redis

import stepwell
from tests.benchmarks.bench import Bench, Goal, Row
from tests.benchmarks.fleet import Fleet

from . import program

SETTLE = 12.0
"""Seconds: longer than any call that blocks, so that the start's commands are over."""
WINDOW = 60.0
"""Seconds: a multiple of every period an idle process has."""


def make_client(url: str, _: Any = None, *, shards: int) -> stepwell.Client:
    """A client with one function that nothing triggers."""
    client = stepwell.Client(app_id="bench", redis_url=url, shards=shards)

    @client.create_function(fn_id="run", trigger=stepwell.TriggerEvent(event=program.EVENT))
    async def run(ctx: stepwell.Context) -> None:
        await ctx.step.run("step", program.nothing)

    return client


def commands(url: str, shards: int) -> dict[str, float]:
    """Commands a second of the coordinator's and the worker's process."""
    # Idle processes may well say nothing for longer than a client waits by default.
    patient: dict[str, Any] = {"decode_responses": True, "socket_timeout": 2 * WINDOW}
    with Fleet(workers=1) as fleet, Redis.from_url(url, protocol=2, **patient) as redis:
        fleet.servant(program.coordinator, url, shards)
        fleet.worker(program.worker, url, None, partial(make_client, shards=shards))
        fleet.producer(program.nobody)
        fleet.run(0)
        time.sleep(SETTLE)
        counts = _heard(redis)
    return {role: counts[role] / WINDOW for role in ("coordinator", "worker")}


def _heard(redis: "Redis") -> Counter[str]:
    """What MONITOR tells in `WINDOW` seconds, by process, without what scripts call."""
    roles = {
        client["addr"]: "coordinator" if "coordinator" in client["name"] else "worker"
        for client in redis.client_list()
    }
    counts: Counter[str] = Counter()
    end = time.monotonic() + WINDOW
    with redis.monitor() as monitor:
        while time.monotonic() < end:
            told = monitor.next_command()
            if told["client_type"] != "lua":
                counts[roles.get(f"{told['client_address']}:{told['client_port']}", "other")] += 1
    return counts


def section(bench: Bench) -> Iterator[Row]:
    """Rows `idle/coordinator` and `idle/worker`, on one shard and on four, in commands/s."""
    goal = Goal("<=", 2, of="value")
    for shards in (1, 4):
        with bench.server() as url:
            rates = commands(url, shards)
        for role in ("coordinator", "worker"):
            name = f"{role}, {shards} shard{'s' * (shards > 1)}"
            yield Row("idle", name, rates[role], "cmd/s", lower=True, goal=goal)
