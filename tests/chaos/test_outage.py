"""The server goes away for a while: producers are told in time, everybody else waits and goes on by themselves."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell import Event
from stepwell.errors import SendError, ServerError
from stepwell_engine.coordinator import Coordinator, Settings
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.store import Store
from stepwell_workers.worker import Worker
from tests.chaos.app import make_client
from tests.chaos.arena import Arena, arena

AWAY = 30.0 if os.environ.get("STEPWELL_CHAOS_LONG") else 4.0
SEND_TIMEOUT = 3.0  # as app.make_client has it


async def _some(here: Arena, count: int) -> None:
    for _ in range(count):
        for name in ("steps", "sleeper", "parent", "retried", "spread"):
            await here.driver.send(f"chaos/{name}")


async def _refused(here: Arena) -> float:
    """Seconds until a producer hears that its event was not taken."""
    began = time.monotonic()
    with pytest.raises((ServerError, SendError, OSError)):
        await here.driver.send("chaos/steps")
    return time.monotonic() - began


@pytest.mark.anyio
async def test_workers_and_coordinators_go_on_by_themselves_after_an_outage(
    tmp_path: Path, durable_server: EmbeddedServer
) -> None:
    server = durable_server
    async with arena(server, tmp_path) as here:
        children = [await here.spawn("coordinator"), await here.spawn("worker")]
        await _some(here, 4)
        await asyncio.to_thread(server.kill)
        away = asyncio.create_task(asyncio.sleep(AWAY))
        assert await _refused(here) < SEND_TIMEOUT + 2
        await away
        # Scripts are not in the append-only file: a server that starts knows none.
        await asyncio.to_thread(server.restart)
        await _some(here, 2)
        problems = await here.verdict(AWAY + 30)
        assert not problems, "\n".join([*problems, here.place.log.read_text()[-4000:]])
        assert all(child.alive for child in children), "nobody had to be started again"


@pytest.mark.anyio
async def test_readiness_says_that_the_server_is_away_and_that_it_is_back(
    tmp_path: Path, durable_server: EmbeddedServer
) -> None:
    server = durable_server
    url = server.url
    store = await Store.open(url, namespace="ready", shards=2)
    client = make_client(url, "ready", 2)
    coordinator = Coordinator(store, settings=Settings(block_ms=500))
    worker = Worker([client], lease_ms=2_000, heartbeat_s=0.4)
    try:
        await coordinator.start()
        await worker.start()
        await _until(lambda: (coordinator.age or 99.0) < 2.0)
        await asyncio.to_thread(server.kill)
        await _until(lambda: (coordinator.age or 0.0) > 3.0 and worker.age > 3.0)
        await asyncio.to_thread(server.restart)
        await client.send(Event(name="chaos/steps", data={"key": "k"}))
        await _until(lambda: (coordinator.age or 99.0) < 2.0 and worker.age < 2.0)
    finally:
        await worker.stop()
        await coordinator.stop()
        await client.aclose()
        await store.aclose()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110 - what is asked for is an age
            await asyncio.sleep(0.05)


@pytest.mark.anyio
async def test_scripts_flushed_and_groups_deleted_under_load_are_made_anew(
    tmp_path: Path, durable_server: EmbeddedServer
) -> None:
    async with arena(durable_server, tmp_path) as here:
        await here.spawn("coordinator")
        await here.spawn("worker")
        await _some(here, 1)
        assert not await here.verdict()
        for turn in range(6):
            await _some(here, 2)
            durable_server.command("FUNCTION", "FLUSH")
            keys = here.store.keys(turn % 4)
            for stream in (keys.events, keys.outbox):
                durable_server.command("XGROUP", "DESTROY", stream, "stepwell")
        problems = await here.verdict()
        assert not problems, "\n".join([*problems, here.place.log.read_text()[-4000:]])
