"""An event that ends one of a million waits on its name, against one of ten: latency and server time."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
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


def wait(order: int, event: str = PAID) -> Sequence[Arg]:
    """Park on the event whose `data.order` is `order`, for a day."""
    key = index_key(order)
    assert key is not None
    details = {
        "event": event, "expression": EXPRESSION, "values": [[PATH, order]], "residual": False,
        "timeout_ms": 86_400_000,
    }  # fmt: skip
    head = memo.head("wait", "nap", 1_700_000_000_000, details)
    return ("w", STEP, 86_400_000, event, PATH.encode() + b"\0" + key, PATH, head, "")


def few(order: int) -> tuple[int, str]:
    """Ten waits a name: the order of the n-th event, or wait, and its name."""
    return order % FEW, f"{PAID}.{order // FEW}"


async def measure(one: str, other: str, waits: int) -> tuple[Figures, Figures]:
    """Events on two servers in turn, so that both meet the same moments of the machine: ten waits a name, and `waits` on one."""
    async with standing(one) as ten, standing(other) as many:
        await ten.made.parked(EVENTS, lambda n: wait(*few(n)))
        await many.made.parked(waits, wait)
        for n in range(EVENTS):
            events = [(ten, *few(n)), (many, n * (waits // EVENTS), PAID)]
            for side, order, name in events[:: 1 if n % 2 else -1]:
                await side.event(order, name)
        return ten.figures, many.figures


class Side:
    """A server with waits, and what events cost there."""

    def __init__(self, made: Bulk, coordinator: Coordinator, redis: "Redis") -> None:
        self.made = made
        self._coordinator = coordinator
        self._redis = redis
        self._times: list[float] = []
        self._costs: list[float] = []

    async def event(self, order: int, name: str) -> None:
        """One for the wait of that order, until it is handled."""
        _, before = await scripts_us(self._redis)
        self._times.append(await _matched(self.made, order, name))
        while not await self._coordinator.idle():  # noqa: ASYNC110 - it tells of the server's streams
            await asyncio.sleep(0.001)
        _, after = await scripts_us(self._redis)
        self._costs.append(after - before)

    @property
    def figures(self) -> Figures:
        return Figures(statistics.median(self._times), statistics.median(self._costs))


@asynccontextmanager
async def standing(url: str) -> AsyncIterator[Side]:
    """A namespace on the server, and a coordinator."""
    async with (
        Redis.from_url(url, protocol=2) as redis,
        bulk(url) as made,
        Coordinator(made.store) as coordinator,
    ):
        yield Side(made, coordinator, redis)


async def _matched(made: Bulk, order: int, name: str) -> float:
    """Send one event; milliseconds until the run that waits for it is in the queue."""
    server, bell = made.store.server, made.lane_bell
    await server.call(bell, "DEL", bell)
    seed = token_hex(8)
    new = NewEvent(name, encode_event(Event(name, {"order": order})), event_entropy(seed, 0))
    began = time.perf_counter()
    await made.shard.ingest(seed, [new], max_len=1_000, dedupe_ms=86_400_000, deadline=None)
    rung = await server.blocking(bell, "BLPOP", bell, 10, timeout=10.0, label="bell")
    assert rung is not None, f"no run was woken by order {order}"
    return (time.perf_counter() - began) * 1000


def section(bench: Bench) -> Iterator[Row]:
    """Rows `waits/…`: ms from send to queue and µs of server time, of ten waits a name and of a million on one."""
    many = bench.size(WAITS, least=10_000)
    with bench.server() as one, bench.server() as other:
        first, second = asyncio.run(measure(one, other, many))
    for what, unit in (("send to queue", "ms"), ("server time", "µs")):
        ten, rest = (f.ms if unit == "ms" else f.us for f in (first, second))
        control = Row("waits", f"{what}, {FEW} waits", ten, unit, lower=True)
        yield control
        yield Row(
            "waits", f"{what}, many", rest, unit, against=control.key, goal=Goal("<=", 1.5),
            lower=True, note=f"{many:,} waits",
        )  # fmt: skip
