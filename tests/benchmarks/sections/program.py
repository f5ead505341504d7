"""The processes of Stepwell as the benchmarks start them: producer, coordinator, worker; all promises on."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

import stepwell
from stepwell_engine.coordinator import Coordinator
from stepwell_engine.garbage import settle_garbage
from stepwell_engine.store.store import Store
from stepwell_workers.services import Services
from stepwell_workers.worker import Worker
from tests.benchmarks.fleet import Seat

EVENT = "bench/run"
Make = Callable[[str, Any], stepwell.Client]
"""How a worker process gets its functions: a function of a module, since processes are spawned."""
DATA = {
    "order": "A-1001",
    "customer": "c-7",
    "items": [{"sku": "w-1", "count": 2, "price": 12.5}],
    "note": "x" * 60,
}


def make_client(url: str, starts: Any = None) -> stepwell.Client:
    """A client with one function that runs `event.data["steps"]` no-op steps."""
    client = stepwell.Client(app_id="bench", redis_url=url)

    @client.create_function(fn_id="run", trigger=stepwell.TriggerEvent(event=EVENT))
    async def run(ctx: stepwell.Context) -> None:
        if starts is not None:
            starts[ctx.event.data["number"]] = time.monotonic_ns() - ctx.event.data["sent"]
        for number in range(ctx.event.data["steps"]):
            await ctx.step.run(f"step-{number}", nothing)

    return client


async def nothing() -> None:
    """A step that does nothing."""


def _settle(seat: Seat, main: Callable[[Seat], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(main(seat))


def coordinator(seat: Seat, url: str, shards: int | None = None) -> None:
    """A coordinator process."""

    async def main(seat: Seat) -> None:
        store = await Store.open(url, shards=shards, name="stepwell-coordinator")
        await Coordinator(store).start()
        settle_garbage()
        seat.arrive()
        await asyncio.Event().wait()

    _settle(seat, main)


# As many runs in hand as the bare path has: two pipelines of 200.
IN_HAND = 400


def worker(
    seat: Seat, url: str, starts: Any = None, make: Make = make_client, in_hand: int = IN_HAND
) -> None:
    """A worker process of the client that `make(url, starts)` gives; counts the runs it has ended."""
    ended = Services.ended

    def counted(self: Services, entry: Any, end: Any) -> None:
        ended(self, entry, end)
        if end is not None and end.status:
            seat.done()

    Services.ended = counted  # type: ignore[method-assign] # counts ends where they are known to be recorded

    async def main(seat: Seat) -> None:
        await Worker([make(url, starts)], concurrency=in_hand).start()
        settle_garbage()
        seat.arrive()
        await asyncio.Event().wait()

    _settle(seat, main)


def producer(seat: Seat, url: str, runs: int, steps: int, batch: int = 200, most: int = 4) -> None:
    """Sends `runs` events, `batch` a call, at most `most` calls in flight."""

    async def main(seat: Seat) -> None:
        client = make_client(url)
        await client.send([])
        flights = asyncio.Semaphore(most)

        async def one(first: int) -> None:
            async with flights:
                events = [
                    stepwell.Event(
                        name=EVENT, data={**DATA, "number": n, "sent": 0, "steps": steps}
                    )
                    for n in range(first, min(first + batch, runs))
                ]
                await client.send(events)

        seat.arrive()
        async with asyncio.TaskGroup() as group:
            for first in range(0, runs, batch):
                await asyncio.sleep(0)
                group.create_task(one(first))
        await client.aclose()

    _settle(seat, main)


def trickler(seat: Seat, url: str, runs: int, gap: float) -> None:
    """Sends one event every `gap` seconds."""

    async def main(seat: Seat) -> None:
        client = make_client(url)
        await client.send([])
        seat.arrive()
        for number in range(runs):
            data = {**DATA, "number": number, "sent": time.monotonic_ns(), "steps": 0}
            await client.send(stepwell.Event(name=EVENT, data=data))
            await asyncio.sleep(gap)
        await client.aclose()

    _settle(seat, main)


def nobody(seat: Seat) -> None:
    """A producer that sends nothing."""
    seat.arrive()
