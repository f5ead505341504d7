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

from .bulk import STEP, Bulk, bulk, scripts_us

WAITS = 1_000_000
FEW = 10
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


async def measure(url: str, waits: int) -> Figures:
    """Waits in place, then events for some of them, one after the other; medians of all events."""
    rounds = max(1, EVENTS // waits)
    times: list[float] = []
    costs: list[float] = []
    async with (
        Redis.from_url(url, protocol=2) as redis,
        bulk(url) as made,
        Coordinator(made.store),
    ):
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
    """Rows `waits/…` of ten and of a million waits: ms from send to queue, and µs of server time."""
    many = bench.size(WAITS, least=10_000)
    with bench.server() as url:
        ten = asyncio.run(measure(url, FEW))
    with bench.server() as url:
        million = asyncio.run(measure(url, many))
    goal, note = Goal("<=", 1.5), f"{many:,} waits"
    for what, unit in (("send to queue", "ms"), ("server time", "µs")):
        name = f"{what}, {FEW} waits"
        few_value, many_value = (ten.ms, million.ms) if unit == "ms" else (ten.us, million.us)
        yield Row("waits", name, few_value, unit, lower=True)
        yield Row(
            "waits", f"{what}, many", many_value, unit, against=f"waits/{name}", goal=goal,
            lower=True, note=note,
        )  # fmt: skip
