"""Queues measured beside Stepwell on a no-op function: one module each, `run(url, jobs, processes,
backlog=False) -> Result`. They remember nothing of a job's steps, so they do less for each job.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec

from .race import Result

PEERS = {"dramatiq": "dramatiq", "taskiq": "taskiq_redis", "docket": "docket"}
"""Peer's module here → the package it needs."""

JOBS = 10_000

Race = Callable[[str, int, int, bool], Result]
"""A peer's `run`: URL, jobs, processes, backlog."""


def races() -> Iterator[tuple[str, Race]]:
    """The peers that are installed, by name."""
    for name, package in PEERS.items():
        if find_spec(package) is None:
            print(f"peers: {name} is left out; install the group: pip install --group bench")
            continue
        yield name, import_module(f"{__name__}.{name}").run
