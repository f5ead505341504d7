"""An event that ends one of a million waits on its name, against one of ten: latency and server time."""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from secrets import token_hex

from redis.asyncio import Redis

from stepwell.events import Event, encode_event
from stepwell.ids import event_entropy
from stepwell_engine.coordinator import Coordinator
from stepwell_engine.expressions import index_key
from stepwell_engine.store.transitions import Arg, NewEvent
from stepwell_workers import memo
from tests.benchmarks.bench import Bench, Goal, Row

from .bulk import STEP, Bulk, bulk, nap, scripts_us

WAITS = 1_000_000
FEW = 10
SLEEPERS = 1_000_000
EVENTS = 200
PAID = "bench/paid"
EXPRESSION = "event.data.number == async.data.order"
PATH = "data.order"


@dataclass(frozen=True, slots=True)
class Figures:
    """For one event: ms until the run it woke is queued, and µs of the server's scripts."""

    ms: float
    us: float


def wait(order: int) -> Sequence[Arg]:
    """Park on the event whose `data.order` is `order`, for a day."""
    key = index_key(order)
    assert key is not None
    details = {
        "event": PAID, "expression": EXPRESSION, "values": [[PATH, order]], "residual": False,
        "timeout_ms": 86_400_000,
    }  # fmt: skip
    head = memo.head("wait", "nap", 1_700_000_000_000, details)
    return ("w", STEP, 86_400_000, PAID, PATH.encode() + b"\0" + key, PATH, head, "")


async def measure(url: str, waits: int, sleepers: int = 0) -> list[Figures]:
    """Ten waits at a time, beside that many sleeping runs; then, if more are asked for, `waits`."""
    async with (
        Redis.from_url(url, protocol=2) as redis,
        bulk(url) as made,
        Coordinator(made.store),
    ):
        await made.parked(sleepers, nap)
        found = [await _medians(made, redis, FEW)]
        if waits > FEW:
            found.append(await _medians(made, redis, waits))
        return found


async def _medians(made: Bulk, redis: "Redis", waits: int) -> Figures:
    """Events, one after the other, for waits that are spread evenly over all."""
    rounds = max(1, EVENTS // waits)
    times: list[float] = []
    costs: list[float] = []
    for _ in range(rounds):
        await made.parked(waits, wait)
        for order in range(0, waits, max(1, waits * rounds // EVENTS)):
            _, before = await scripts_us(redis)
            times.append(await _matched(made, order))
            _, after = await scripts_us(redis)
            costs.append(after - before)
        await made.finish(await made.lease())
    return Figures(statistics.median(times), statistics.median(costs))


async def _matched(made: Bulk, order: int) -> float:
    """Send one event; milliseconds until the run that waits for it is in the queue."""
    server, bell = made.store.server, made.lane_bell
    await server.call(bell, "DEL", bell)
    seed = token_hex(8)
    new = NewEvent(PAID, encode_event(Event(PAID, {"order": order})), event_entropy(seed, 0))
    began = time.perf_counter()
    await made.shard.ingest(seed, [new], max_len=1_000, dedupe_ms=86_400_000, deadline=None)
    rung = await server.blocking(bell, "BLPOP", bell, 10, timeout=10.0, label="bell")
    assert rung is not None, f"no run was woken by order {order}"
    return (time.perf_counter() - began) * 1000


def section(bench: Bench) -> Iterator[Row]:
    """Rows `waits/…`: ms from send to queue and µs of server time, of ten waits on an empty server, of ten on one that holds
    sleeping runs (what any data costs: caches, the heap's age), and of a million there.
    """
    many, sleepers = bench.size(WAITS, least=10_000), bench.size(SLEEPERS, least=10_000)
    with bench.server() as url:
        (ten,) = asyncio.run(measure(url, FEW))
    with bench.server() as url:
        beside, million = asyncio.run(measure(url, many, sleepers))
    for what, unit in (("send to queue", "ms"), ("server time", "µs")):
        first, second, third = (
            figures.ms if unit == "ms" else figures.us for figures in (ten, beside, million)
        )
        control = Row("waits", f"{what}, {FEW} waits", first, unit, lower=True)
        yield control
        yield Row(
            "waits", f"{what}, {FEW} beside sleepers", second, unit, against=control.key, lower=True,
            note=f"{sleepers:,} sleeping runs",
        )  # fmt: skip
        yield Row(
            "waits", f"{what}, many", third, unit, against=control.key, goal=Goal("<=", 1.5),
            lower=True, note=f"{many:,} waits",
        )  # fmt: skip
