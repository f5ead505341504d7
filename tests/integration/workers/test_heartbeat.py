"""The heartbeat against a real server: renewals past a blocked loop, losses, outages, deadlines."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from stepwell.clock import SystemClock
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.keys import Keys
from stepwell_engine.store.store import Store
from stepwell_workers.heartbeat import CHUNK, Heartbeat, Lost

RUN = "01J00000000000000000000000"
KEYS = Keys("stepwell", 0)
LEASES = KEYS.build("leases")
LIMIT = 20.0


@pytest.fixture
def server(server: EmbeddedServer) -> EmbeddedServer:
    server.command("FLUSHALL")
    return server


def lease(server: EmbeddedServer, token: str, run: str = RUN) -> None:
    server.command("HSET", KEYS.run(run), "l", token)
    server.command("ZADD", LEASES, 1, run)


def expiry(server: EmbeddedServer, run: str = RUN) -> float:
    return float(server.command("ZSCORE", LEASES, run))


def block_until(true: Callable[[], bool]) -> None:
    """Block this thread, and so its event loop, as careless user code does."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, "it didn't happen"
        time.sleep(0.005)


@asynccontextmanager
async def beating(
    server: EmbeddedServer, *, lease_ms: int = 20_000, interval: float = 0.05
) -> AsyncIterator[tuple[Heartbeat, "asyncio.Queue[Lost]"]]:
    lost: asyncio.Queue[Lost] = asyncio.Queue()

    def on_lost(them: list[Lost]) -> None:
        for each in them:
            lost.put_nowait(each)

    def link() -> Awaitable[Store]:
        return Store.open(server.url, clock=SystemClock())

    heartbeat = Heartbeat("w1", link, on_lost, interval=interval, lease_ms=lease_ms)
    heartbeat.start()
    try:
        yield heartbeat, lost
    finally:
        async with asyncio.timeout(LIMIT):
            await heartbeat.stop()
            await heartbeat.stop()


async def take(lost: "asyncio.Queue[Lost]") -> Lost:
    return await asyncio.wait_for(lost.get(), LIMIT)


def test_renews_while_the_loop_is_blocked(server: EmbeddedServer) -> None:
    async def main() -> None:
        async with beating(server) as (heartbeat, lost):
            await asyncio.wait_for(heartbeat.alive(), LIMIT)
            lease(server, "a.1")
            heartbeat.hold(RUN, "a.1", 0)
            block_until(lambda: expiry(server) > 1)
            first = expiry(server)
            block_until(lambda: expiry(server) > first)
            assert lost.empty()
            assert heartbeat.age is not None
            assert heartbeat.age < LIMIT

    asyncio.run(main())


def test_worker_is_alive_without_leases_and_after(server: EmbeddedServer) -> None:
    async def main() -> None:
        async with beating(server) as (heartbeat, _):
            assert heartbeat.age is None
            await asyncio.wait_for(heartbeat.alive(), LIMIT)
            first = float(server.command("ZSCORE", KEYS.build("workers"), "w1"))
            block_until(
                lambda: float(server.command("ZSCORE", KEYS.build("workers"), "w1")) > first
            )

    asyncio.run(main())


def test_lease_taken_by_another_is_told_once(server: EmbeddedServer) -> None:
    async def main() -> None:
        async with beating(server) as (heartbeat, lost):
            lease(server, "b.1")
            heartbeat.hold(RUN, "a.1", 0)
            assert await take(lost) == Lost(RUN, "a.1", "taken")
            # Leased anew before the old entry is dropped: the late drop must not touch it.
            heartbeat.hold(RUN, "b.1", 0)
            heartbeat.drop(RUN, "a.1")
            block_until(lambda: expiry(server) > 1)
            heartbeat.drop(RUN, "b.1")
            heartbeat.drop(RUN, "b.1")
            assert lost.empty()

    asyncio.run(main())


def test_past_its_deadline_a_lease_runs_out(server: EmbeddedServer) -> None:
    async def main() -> None:
        async with beating(server, lease_ms=300) as (heartbeat, lost):
            lease(server, "a.1")
            hold = heartbeat.hold(RUN, "a.1", 0)
            block_until(lambda: expiry(server) > 1)
            hold.deadline = time.monotonic()
            assert await take(lost) == Lost(RUN, "a.1", "timeout")
            ended = expiry(server)
            beat = heartbeat.age
            block_until(lambda: heartbeat.age != beat)
            assert expiry(server) == ended

    asyncio.run(main())


def test_an_outage_longer_than_the_lease_loses_it(server: EmbeddedServer) -> None:
    async def main() -> None:
        async with beating(server, lease_ms=400) as (heartbeat, lost):
            lease(server, "a.1")
            heartbeat.hold(RUN, "a.1", 0)
            await asyncio.wait_for(heartbeat.alive(), LIMIT)
            server.pause()
            try:
                assert await take(lost) == Lost(RUN, "a.1", "unrenewed")
            finally:
                server.resume()
            lease(server, "a.2")
            heartbeat.hold(RUN, "a.2", 0)
            block_until(lambda: expiry(server) > 1)
            assert lost.empty()

    asyncio.run(main())


def test_a_restarted_server_is_found_again(server: EmbeddedServer) -> None:
    async def main() -> None:
        async with beating(server) as (heartbeat, lost):
            await asyncio.wait_for(heartbeat.alive(), LIMIT)
            server.restart()
            lease(server, "a.1")
            heartbeat.hold(RUN, "a.1", 0)
            block_until(lambda: expiry(server) > 1)
            assert lost.empty()

    asyncio.run(main())


def test_absent_server_fences_and_stops_promptly() -> None:
    async def main() -> None:
        lost: asyncio.Queue[Lost] = asyncio.Queue()

        def link() -> Awaitable[Store]:
            return Store.open("redis://127.0.0.1:1", clock=SystemClock(), deadline=0.1)

        heartbeat = Heartbeat(
            "w1", link, lambda them: lost.put_nowait(them[0]), interval=0.05, lease_ms=100
        )
        heartbeat.start()
        heartbeat.hold(RUN, "a.1", 0)
        assert (await take(lost)).reason == "unrenewed"
        await asyncio.wait_for(heartbeat.stop(), 2.0)

    asyncio.run(main())


def test_more_leases_than_one_script_takes(server: EmbeddedServer) -> None:
    runs = [f"01J{number:023d}" for number in range(CHUNK + 5)]

    async def main() -> None:
        async with beating(server, interval=0.3) as (heartbeat, lost):
            for run in runs[:-1]:
                lease(server, "a.1", run)
            for run in runs:
                heartbeat.hold(run, "a.1", 0)
            assert await take(lost) == Lost(runs[-1], "a.1", "taken")
            block_until(lambda: int(server.command("ZCOUNT", LEASES, "-inf", 1)) == 0)
            assert lost.empty()

    asyncio.run(main())


def test_interval_must_leave_room() -> None:
    with pytest.raises(ValueError, match="write a third of them or less"):
        Heartbeat("w", lambda: Store.open(""), lambda _: None, interval=20.0)
