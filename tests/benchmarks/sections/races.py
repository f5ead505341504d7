"""Stepwell on the peers' no-op job, against each of them in the same run. It records history, they don't."""

from collections.abc import Iterator

from .. import peers
from ..bench import Bench, Goal, Row
from ..fleet import Fleet
from . import program


def rate(url: str, jobs: int, processes: int, *, backlog: bool, batch: int) -> float:
    """Jobs a second as `peers.race` counts them; with `backlog` of coordinator and workers alone."""
    with Fleet(workers=processes) as fleet:
        fleet.servant(program.coordinator, url)
        for _ in range(processes):
            fleet.worker(program.worker, url)
        flights = 4 if batch > 1 else peers.FLIGHT
        fleet.producer(program.producer, url, jobs, 0, batch, flights)
        return jobs / fleet.run(jobs, backlog=backlog)


def section(bench: Bench) -> Iterator[Row]:
    """Rows `races/<n>p[ backlog] vs <peer>`: the same figure against each; the goal is for one process."""
    jobs = bench.size(peers.JOBS)
    for processes in (1, 2):
        for backlog, batch in ((False, 1), (False, 200), (True, 200)):
            samples = bench.samples(
                lambda url, p=processes, k=backlog, b=batch: rate(url, jobs, p, backlog=k, batch=b)
            )
            kind = " backlog" if backlog else " batched" if batch > 1 else ""
            goal = Goal(">=", 1.0) if processes == 1 else None
            against = f"{processes}p{' backlog' if backlog else ''}"
            for peer in peers.PEERS:
                yield Row.of(
                    "races", f"{processes}p{kind} vs {peer}", "jobs/s", samples,
                    against=f"peers/{peer} {against}", goal=goal,
                )  # fmt: skip
