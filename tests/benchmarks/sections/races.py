"""Stepwell and each peer on a no-op job, in turn, so that both meet the same machine. Stepwell keeps history, they don't."""

from collections.abc import Iterator

from tests.benchmarks import peers
from tests.benchmarks.bench import Bench, Goal, Row
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.peers.race import FLIGHT
from tests.benchmarks.sections import program


def rate(url: str, jobs: int, processes: int, backlog: bool) -> float:
    """Jobs a second as `peers.race` counts them, each sent by a call of its own; with `backlog` of coordinator and workers alone."""
    with Fleet(workers=processes) as fleet:
        fleet.servant(program.coordinator, url)
        for _ in range(processes):
            fleet.worker(program.worker, url)
        fleet.producer(program.producer, url, jobs, 0, 1, FLIGHT)
        return jobs / fleet.run(jobs, backlog=backlog)


def section(bench: Bench) -> Iterator[Row]:
    """Rows `peers/<peer> <n>p[ backlog]` and `peers/stepwell …, <peer>`, its ratio to that; goals are for one process."""
    for name, race in peers.races():
        for processes in (1, 2):
            for backlog in (False, True):
                yield from _rows(bench, name, race, processes, backlog)


def _rows(
    bench: Bench, name: str, race: peers.Race, processes: int, backlog: bool
) -> Iterator[Row]:
    jobs = bench.size(peers.JOBS)
    theirs: list[float] = []
    ours: list[float] = []
    for _ in range(bench.repeat):
        with bench.server() as url:
            theirs.append(race(url, jobs, processes, backlog).rate)
        with bench.server() as url:
            ours.append(rate(url, jobs, processes, backlog))
    label = f"{processes}p{' backlog' * backlog}"
    peer = Row.of("peers", f"{name} {label}", "jobs/s", theirs)
    goal = Goal(">=", 1.0) if processes == 1 else None
    yield peer
    yield Row.of("peers", f"stepwell {label}, {name}", "jobs/s", ours, against=peer.key, goal=goal)
