"""taskiq: Redis stream broker, uvloop, 100 async tasks a process (its worker's default)."""

import asyncio
import logging
from typing import Any

import uvloop
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from tests.benchmarks.fleet import Seat

from .race import FLIGHT, Result, race


def run(url: str, jobs: int, processes: int, backlog: bool = False) -> Result:
    """Rate of a no-op task."""
    return race("taskiq", _worker, _producer, url, jobs, processes, backlog)


def _broker(url: str) -> RedisStreamBroker:
    # From the stream's beginning: a group made after the first message must not miss it.
    return RedisStreamBroker(url, consumer_id="0")


def _worker(seat: Seat, url: str) -> None:
    logging.disable(logging.WARNING)
    uvloop.run(_work(seat, _broker(url)))


async def _work(seat: Seat, broker: RedisStreamBroker) -> None:
    async def nothing() -> None:
        seat.done()

    broker.register_task(nothing, task_name="nothing")
    await broker.startup()
    await asyncio.to_thread(seat.arrive)
    await run_receiver_task(broker)


def _producer(seat: Seat, url: str, jobs: int) -> None:
    uvloop.run(_produce(seat, _broker(url), jobs))


async def _produce(seat: Seat, broker: RedisStreamBroker, jobs: int) -> None:
    async def nothing() -> None:
        """Runs in the workers; here it is only a name to send."""

    task: Any = broker.register_task(nothing, task_name="nothing")
    await broker.startup()
    seat.arrive()
    for first in range(0, jobs, FLIGHT):
        await asyncio.gather(*(task.kiq() for _ in range(first, min(first + FLIGHT, jobs))))
