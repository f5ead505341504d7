"""Queues measured beside Stepwell on a no-op function: one module each, `run(url, jobs, processes,
backlog=False) -> Result`. They remember nothing of a job's steps, so they do less for each job.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec

from tests.benchmarks.bench import Bench, Row

from .race import FLIGHT as FLIGHT
from .race import Result

PEERS = {"dramatiq": "dramatiq", "taskiq": "taskiq_redis", "docket": "docket"}
"""Peer's module here → the package it needs."""

JOBS = 10_000


def section(bench: Bench) -> Iterator[Row]:
    """Rows `peers/<name> <n>p` (first enqueue to last executed) and `… <n>p backlog` (workers
    alone, everything enqueued before they start), for n = 1 and 2 worker processes.
    """
    for name, package in PEERS.items():
        if find_spec(package) is None:
            print(f"peers: {name} is left out; install the group: pip install --group bench")
            continue
        race: Callable[..., Result] = import_module(f"{__name__}.{name}").run
        for processes in (1, 2):
            for backlog in (False, True):
                yield _row(bench, name, race, processes, backlog)


def _row(
    bench: Bench, name: str, race: Callable[..., Result], processes: int, backlog: bool
) -> Row:
    jobs = bench.size(JOBS)
    samples = bench.samples(lambda url: race(url, jobs, processes, backlog).rate)
    label = f"{name} {processes}p{' backlog' if backlog else ''}"
    return Row.of("peers", label, "jobs/s", samples)
