"""docket: uvloop, concurrency 100 a process, a short check interval, room for connections."""

import asyncio
import logging
from datetime import timedelta

import uvloop
from docket import Docket, Worker

from tests.benchmarks.fleet import Seat

from .race import FLIGHT, Result, race

CONCURRENCY = 100
CHECK = timedelta(milliseconds=50)
"""It sleeps this long when its slots are full; its default, 250 ms, allows 400 jobs/s."""
CONNECTIONS = 400
"""Its tasks take a connection each; at the client's own bound of 100 its scheduler loop fails."""


def run(url: str, jobs: int, processes: int, backlog: bool = False) -> Result:
    """Rate of a no-op task."""
    return race("docket", _worker, _producer, url, jobs, processes, backlog)


def _docket(url: str) -> Docket:
    return Docket(name="bench", url=f"{url}?max_connections={CONNECTIONS}")


def _worker(seat: Seat, url: str) -> None:
    logging.disable(logging.WARNING)
    uvloop.run(_work(seat, url))


async def _work(seat: Seat, url: str) -> None:
    async def nothing() -> None:
        seat.done()

    async with _docket(url) as docket:
        docket.register(nothing)
        async with Worker(docket, concurrency=CONCURRENCY, minimum_check_interval=CHECK) as worker:
            await asyncio.to_thread(seat.arrive)
            await worker.run_forever()


def _producer(seat: Seat, url: str, jobs: int) -> None:
    logging.disable(logging.WARNING)
    uvloop.run(_produce(seat, url, jobs))


async def _produce(seat: Seat, url: str, jobs: int) -> None:
    async def nothing() -> None:
        """Runs in the workers; here it is only a name to send."""

    async with _docket(url) as docket:
        docket.register(nothing)
        seat.arrive()
        for first in range(0, jobs, FLIGHT):
            batch = range(first, min(first + FLIGHT, jobs))
            await asyncio.gather(*(docket.add(nothing)() for _ in batch))
