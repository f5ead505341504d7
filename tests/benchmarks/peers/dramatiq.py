"""dramatiq: Redis broker, its default middleware, 8 worker threads, prefetch of 100."""

import logging
import threading
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks.fleet import Seat

from .race import Result, race

THREADS = 8
PREFETCH = 100
"""At its default, twice the threads, its consumer sleeps while full: 2/3 of this rate."""


def run(url: str, jobs: int, processes: int, backlog: bool = False) -> Result:
    """Rate of a no-op actor."""
    return race("dramatiq", _worker, _producer, url, jobs, processes, backlog)


def _actor(url: str, function: Any) -> Any:
    broker = RedisBroker(url=url)
    return dramatiq.actor(broker=broker, actor_name="nothing")(function)


def _worker(seat: Seat, url: str) -> None:
    logging.disable(logging.WARNING)
    lock = threading.Lock()

    def nothing() -> None:
        with lock:
            seat.done()

    actor = _actor(url, nothing)
    worker = dramatiq.Worker(actor.broker, worker_threads=THREADS)
    worker.queue_prefetch = PREFETCH
    seat.arrive()
    worker.start()
    worker.join()
    threading.Event().wait()


def _producer(seat: Seat, url: str, jobs: int) -> None:
    actor = _actor(url, lambda: None)
    actor.broker.client.ping()
    seat.arrive()
    for _ in range(jobs):
        actor.send()
