"""A million sleeping runs: the server's memory for each, all keys counted, and what leasing costs beside them."""

import asyncio
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from redis.asyncio import Redis

from tests.benchmarks.bench import Bench, Goal, Row

from .bulk import Bulk, bulk, nap, scripts_us

RUNS = 1_000_000
ROUNDS = 20
BATCH = 1_000
# The embedded server's own setting isn't what a user's server has.
DEFAULT, LARGE = 64, 2048


@dataclass(frozen=True, slots=True)
class Figures:
    """KiB of server memory a sleeping run, and µs of server time a leased item before and beside them."""

    kib: float
    empty_us: float
    beside_us: float


async def measure(url: str, runs: int, listpack: int) -> Figures:
    """Make the runs and lease others before and after."""
    async with Redis.from_url(url, protocol=2) as redis:
        await redis.config_set("hash-max-listpack-value", listpack)
        async with bulk(url) as made:
            empty = await _leasing(made, redis)
            before = int((await redis.info("memory"))["used_memory"])
            await made.parked(runs, nap)
            used = int((await redis.info("memory"))["used_memory"]) - before
            return Figures(used / runs / 1024, empty, await _leasing(made, redis))


async def _leasing(made: Bulk, redis: "Redis") -> float:
    """Median µs of server time for one item of a call that leases 200."""
    found: list[float] = []
    for _ in range(ROUNDS):
        await made.start(BATCH)
        while True:
            _, before = await scripts_us(redis)
            items = await made.lease()
            _, after = await scripts_us(redis)
            if not items:
                break
            found.append((after - before) / len(items))
            await made.finish(items)
    return statistics.median(found)


def section(bench: Bench) -> Iterator[Row]:
    """Rows `memory/a run …` in KiB and `memory/lease …` in µs, with the server's defaults and with larger listpacks."""
    runs = bench.size(RUNS, least=10_000)
    for label, listpack in (("", DEFAULT), (f", listpack {LARGE}", LARGE)):
        with bench.server() as url:
            figures = asyncio.run(measure(url, runs, listpack))
        small, note = Goal("<=", 1.5, of="value"), f"{runs:,} sleeping runs"
        yield Row("memory", f"a run{label}", figures.kib, "KiB", lower=True, goal=small, note=note)
        empty, beside = f"lease, empty{label}", f"lease beside them{label}"
        yield Row("memory", empty, figures.empty_us, "µs", lower=True)
        yield Row(
            "memory", beside, figures.beside_us, "µs", against=f"memory/{empty}",
            goal=Goal("<=", 1.5), lower=True,
        )  # fmt: skip
