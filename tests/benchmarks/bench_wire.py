"""Wire against redis.asyncio's pipeline: commands a second at several batch sizes.

Run: python tests/benchmarks/bench_wire.py [seconds for each measurement]
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

import redis.asyncio

from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script
from stepwell_engine.store.url import parse
from stepwell_engine.store.wire import Wire

SCRIPT = Script("nothing", "return 1")


async def rate(seconds: float, batch: int, once: Callable[[], Awaitable[object]]) -> float:
    await once()
    done, start = 0, perf_counter()
    while (spent := perf_counter() - start) < seconds:
        await once()
        done += batch
    return done / spent


async def compare(url: str, seconds: float) -> None:
    client = redis.asyncio.Redis.from_url(url)
    wire = await Wire.connect(parse(url).seeds[0], name="bench", timeout=5)
    server = await Server.open(url)
    print(f"{'batch':>6} {'redis.asyncio':>14} {'Wire':>10} {'Server.script':>14} {'ratio':>13}")
    for batch in (1, 10, 100, 1000):

        async def theirs(batch: int = batch) -> None:
            pipe = client.pipeline(transaction=False)
            for _ in range(batch):
                pipe.get("k")
            await pipe.execute()

        async def ours(batch: int = batch) -> None:
            for future in [wire.call("GET", "k") for _ in range(batch)]:
                await future

        async def scripts(batch: int = batch) -> None:
            for sent in [server.script("k", SCRIPT, ["k"], [1]) for _ in range(batch)]:
                await sent

        a, b, c = [await rate(seconds, batch, once) for once in (theirs, ours, scripts)]
        print(f"{batch:>6} {a:>14,.0f} {b:>10,.0f} {c:>14,.0f} {b / a:>12.1f}x")
    await client.aclose()
    await wire.aclose()
    await server.aclose()


if __name__ == "__main__":
    with EmbeddedServer() as embedded:
        asyncio.run(compare(embedded.url, float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
