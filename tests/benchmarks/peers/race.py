"""The race every peer runs: worker processes, one producer process, a rate."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.fleet import Fleet

FLIGHT = 50
"""Enqueue calls an async producer keeps under way: each peer's fastest on two cores is near it."""


@dataclass(frozen=True, slots=True)
class Result:
    """`jobs` executed in `seconds` by `processes` worker processes."""

    name: str
    jobs: int
    processes: int
    backlog: bool
    seconds: float

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds


def race(
    name: str,
    worker: Callable[..., None],
    producer: Callable[..., None],
    url: str,
    jobs: int,
    processes: int,
    backlog: bool,
) -> Result:
    """Run `worker(seat, url)` in each process and `producer(seat, url, jobs)` in one more.

    Seconds count from the first enqueue to the last execution; with `backlog` from the start of
    the workers, all jobs being enqueued by then.
    """
    with Fleet(workers=processes) as fleet:
        for _ in range(processes):
            fleet.worker(worker, url)
        fleet.producer(producer, url, jobs)
        seconds = fleet.run(jobs, backlog=backlog)
    return Result(name, jobs, processes, backlog, seconds)
