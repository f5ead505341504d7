"""Runs a second and the latency of a start, each beside the bare path in the same minute."""

import statistics
from collections.abc import Iterator
from ctypes import c_longlong
from multiprocessing.sharedctypes import RawArray

from tests.benchmarks import bare
from tests.benchmarks.bench import Bench, Goal, Row
from tests.benchmarks.fleet import Fleet

from . import program


def throughput(url: str, runs: int, steps: int, workers: int = 1) -> float:
    """Runs a second from the first send to the last run recorded, with history, retries, fencing and finished events."""
    with Fleet(workers=workers) as fleet:
        fleet.servant(program.coordinator, url)
        for _ in range(workers):
            fleet.worker(program.worker, url)
        fleet.producer(program.producer, url, runs, steps)
        return runs / fleet.run(runs)


def latency(url: str, runs: int = 300, gap: float = 0.01) -> list[float]:
    """Milliseconds from send to the function's first line in an idle system."""
    starts = RawArray(c_longlong, runs)
    with Fleet(workers=1) as fleet:
        fleet.servant(program.coordinator, url)
        fleet.worker(program.worker, url, starts)
        fleet.producer(program.trickler, url, runs, gap)
        fleet.run(runs)
    return sorted(nanos / 1e6 for nanos in list(starts)[runs // 10 :])


def section(bench: Bench) -> Iterator[Row]:
    """Rows `stepwell/N steps` against `bare/N steps`, measured in turn, and the start's percentiles."""
    for steps, runs in bare.SIZES.items():
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(bench.repeat):
            with bench.server() as url:
                theirs.append(bare.throughput(url, bench.size(runs), steps))
            with bench.server() as url:
                ours.append(throughput(url, bench.size(runs), steps))
        yield Row.of("bare", f"{steps} steps", "runs/s", theirs)
        yield Row.of(
            "stepwell",
            f"{steps} steps",
            "runs/s",
            ours,
            against=f"bare/{steps} steps",
            goal=Goal(">=", 0.5),
        )
    yield from _starts(bench)


def _starts(bench: Bench) -> Iterator[Row]:
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for _ in range(bench.repeat):
        for measure, found in ((bare.latency, theirs), (latency, ours)):
            with bench.server() as url:
                found.append(statistics.quantiles(measure(url), n=100))
    for percent, bound in ((50, 1.5), (99, 6.0)):
        name, at = f"start p{percent}", percent - 1
        yield Row.of("bare", name, "ms", [waits[at] for waits in theirs], lower=True)
        yield Row.of(
            "stepwell", name, "ms", [waits[at] for waits in ours], against=f"bare/{name}",
            goal=Goal("<=", bound, of="value"), lower=True,
        )  # fmt: skip
