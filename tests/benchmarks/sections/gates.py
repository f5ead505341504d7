"""What limits cost: waits beside a hot key, many keys, blocked keys, and a function with every option beside one with none."""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

from redis.asyncio import Redis

import stepwell
from stepwell.ids import run_id
from stepwell_engine.fanout import GROUP, RECORD_TTL_MS
from stepwell_engine.limits.admission import Flow
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Leased, NewRun
from tests.benchmarks.bench import Bench, Goal, Row
from tests.benchmarks.fleet import Fleet, Seat

from . import program
from .bulk import scripts_us

LANE, FN = "bench", "1"
LEASE = 200
CHUNK = 1_000
HOT = 100_000
BLOCKED = 100_000
TURNS = 300
RUNS = 8_000


class Queue:
    """One function with a limit of one for each key; its runs are made, leased and ended at full speed."""

    def __init__(self, store: Store) -> None:
        self.shard = store.home
        self.server = store.server
        self._clock = store.clock
        self._made = 0

    async def start(self, keys: Sequence[str]) -> None:
        """Create a run for each of these keys."""
        for first in range(0, len(keys), CHUNK):
            runs = [self._run(key) for key in keys[first : first + CHUNK]]
            await self.shard.fanout(GROUP, (), (), runs, record_ttl_ms=RECORD_TTL_MS)

    def _run(self, key: str) -> NewRun:
        self._made += 1
        now = self._clock.now_ms()
        run = run_id(now, f"{self._made:026d}", LANE, "run", 0)
        gate = f"c0{key:_<16}" if key else ""
        return NewRun(run, FN, LANE, b"E" * 26 + b"x" * 200, 0, now, False, "", gate)

    async def lease(self, want: int = LEASE) -> list[Leased]:
        """One call of lease.lua, as a worker makes it."""
        return await self.shard.lease(
            "bench", token_hex(3), [LANE], want=want, lease_ms=3_600_000, suspects=1
        )

    async def finish(self, items: Sequence[Leased]) -> None:
        """End leased runs, all at once."""
        await self.shard.returned([a for i in items for a in (i.run_id, i.token, b"\xc0")])


@asynccontextmanager
async def queue(url: str, limit: int = 1) -> AsyncGenerator[Queue]:
    """A fresh namespace with the function's limits published."""
    store = await Store.open(url)
    try:
        await store.home.configure(1, [(FN, LANE, limit, "", "", "", 1)], most=500)
        yield Queue(store)
    finally:
        await store.aclose()


def _on_queue(url: str, measure: Callable[[Queue], Awaitable[float]]) -> float:
    async def main() -> float:
        async with queue(url) as made:
            return await measure(made)

    return asyncio.run(main())


def small_wait(url: str, hot: int) -> float:
    """ms: p99 wait of a hundred keys with ten runs each, one at a time each, beside a key with `hot` runs queued before."""

    async def measure(made: Queue) -> float:
        small = {f"small{n}" for n in range(100)}
        await made.start(["hot"] * hot)
        await made.start([name for _ in range(10) for name in sorted(small)])
        begun, waits = time.perf_counter(), list[float]()
        while len(waits) < 1_000:
            # Twenty of them work at a time, so that keys compete for workers too.
            items = await made.lease(20)
            now = time.perf_counter()
            keys = [(await made.server.call(k, "HGET", k, "k")).decode()[2:].rstrip("_")
                    for k in (made.shard.keys.run(i.run_id) for i in items)]  # fmt: skip
            waits += [(now - begun) * 1000 for key in keys if key in small]
            await made.finish(items)
        return statistics.quantiles(waits, n=100)[98]

    return _on_queue(url, measure)


def key_rate(url: str, count: int, keys: bool) -> float:
    """Runs a second, leased and ended: each with a key of its own, or all of a function without keys."""

    async def measure(made: Queue) -> float:
        await made.start([f"key{n}" if keys else "" for n in range(count)])
        begun, done = time.perf_counter(), 0
        while items := await made.lease():
            await made.finish(items)
            done += len(items)
        assert done == count, done
        return count / (time.perf_counter() - begun)

    return _on_queue(url, measure)


def blocked_us(url: str, blocked: int) -> float:
    """Microseconds of a lease and an end of a run, of ten keys that are free, beside `blocked` keys that are not."""

    async def measure(made: Queue) -> float:
        names = [f"shut{n}" for n in range(blocked)]
        await made.start(names * 2)
        held = 0
        while items := await made.lease():
            held += len(items)
        while await made.server.call("x", "EXISTS", made.shard.keys.build("ready_fns", LANE)):
            held += len(await made.lease())
        assert held == blocked, held
        await made.start([f"free{n % 10}" for n in range(TURNS * 10)])
        redis: Redis = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType] its kwargs are
        try:
            _, before = await scripts_us(redis)
            for _ in range(TURNS):
                items = await made.lease(10)
                assert len(items) == 10, len(items)
                await made.finish(items)
            return (await scripts_us(redis))[1] - before
        finally:
            await redis.aclose()

    return _on_queue(url, measure) / TURNS / 10


def make_limited(url: str, _: Any = None) -> stepwell.Client:
    """The client of `program` with every option on that lets all of its runs go on."""
    client = stepwell.Client(app_id="bench", redis_url=url)

    @client.create_function(
        fn_id="run",
        trigger=stepwell.TriggerEvent(event=program.EVENT),
        concurrency=[
            stepwell.Concurrency(limit=1_000, key="event.data.customer"),
            stepwell.Concurrency(limit=100, key="string(event.data.number % 50)"),
        ],
        throttle=stepwell.Throttle(limit=1_000_000, period="1s", burst=1_000_000),
        rate_limit=stepwell.RateLimit(limit=1_000_000, period="1m", key="event.data.customer"),
        idempotency="string(event.data.number)",
        priority=stepwell.Priority(run="event.data.number % 3"),
        cancel=[stepwell.Cancel(event="bench/stop", match="data.number")],
        timeouts=stepwell.Timeouts(start="1h", finish="2h"),
    )
    async def run(ctx: stepwell.Context) -> None:
        for number in range(ctx.event.data["steps"]):
            await ctx.step.run(f"step-{number}", program.nothing)

    return client


def coordinator(seat: Seat, url: str) -> None:
    """A coordinator that has read the function: the grammar of expressions is built at registration, not with events."""
    for function in make_limited(url).functions.values():
        Flow.read(function.config())
    program.coordinator(seat, url)


def throughput(url: str, runs: int, make: program.Make) -> float:
    """Runs a second of one step, from the first send to the last run recorded."""
    with Fleet(workers=1) as fleet:
        fleet.servant(coordinator, url)
        fleet.worker(program.worker, url, None, make)
        fleet.producer(program.producer, url, runs, 1)
        return runs / fleet.run(runs)


def section(bench: Bench) -> Iterator[Row]:
    """Each row beside the same without what it is about, measured in turn."""
    hot, keys, shut, runs = (bench.size(n) for n in (HOT, HOT, BLOCKED, RUNS))
    pairs: list[tuple[str, str, str, Callable[[str], float], Callable[[str], float], Goal, bool]] = [
        ("wait of small keys", "alone", "beside a hot key", lambda u: small_wait(u, 0),
         lambda u: small_wait(u, hot), Goal("<=", 1.5), True),
        ("runs of many keys", "no keys", "a key each", lambda u: key_rate(u, keys, False),
         lambda u: key_rate(u, keys, True), Goal(">=", 0.4), False),
        ("a lease", "10 blocked keys", f"{shut:,} blocked keys", lambda u: blocked_us(u, 10),
         lambda u: blocked_us(u, shut), Goal("<=", 1.5), True),
        ("throughput", "no options", "all options", lambda u: throughput(u, runs, program.make_client),
         lambda u: throughput(u, runs, make_limited), Goal(">=", 0.5), False),
    ]  # fmt: skip
    units = {"wait of small keys": "ms p99", "a lease": "us"}
    for name, without, with_, base, loaded, goal, lower in pairs:
        samples = defaultdict[str, list[float]](list)
        for _ in range(bench.repeat):
            for label, measure in ((without, base), (with_, loaded)):
                with bench.server() as url:
                    samples[label].append(measure(url))
        unit = units.get(name, "runs/s")
        yield Row.of("gates", f"{name}, {without}", unit, samples[without], lower=lower)
        yield Row.of(
            "gates", f"{name}, {with_}", unit, samples[with_], against=f"gates/{name}, {without}", goal=goal, lower=lower,
        )  # fmt: skip
