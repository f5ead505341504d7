"""A Cluster: each shard has its own slot, so its own blocking call; a failing read waits for nobody else's."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from stepwell.events import Event
from stepwell_engine.embedded import EmbeddedCluster
from stepwell_engine.store.nodes import Server
from tests.integration.coordination import (
    APP,
    SHARDS,
    config,
    coordinator,
    delivered,
    on_shard,
    settled,
    world,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster() as running:
        yield running


async def test_events_runs_and_waits_of_shards_on_several_masters(cluster: EmbeddedCluster) -> None:
    async with world(cluster, SHARDS) as w:
        await w.functions(**{f"fn{i}": config("order/created") for i in range(8)})
        async with coordinator(w) as c:
            for shard in range(SHARDS):
                await w.send(Event("order/created", {"from": shard}), shard=shard)
            await settled(c)
            items = [
                item for shard in range(SHARDS) for item in await w.lease(want=50, shard=shard)
            ]
            assert len(items) == 8 * SHARDS
            for item in items:
                key = await w.wait_for(item, "go", "all/go")
            await w.send(Event("all/go"), shard=1)
            await settled(c)
            for item in items:
                assert delivered(await w.run(item.run_id), key) is not None
            labels = {"app": APP, "function": "fn0"}
            assert (
                c.metrics.registry.get_sample_value("stepwell_runs_started_total", labels) == SHARDS
            )


async def test_a_slow_look_at_the_clocks_does_not_blur_what_came_first(
    cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = [0.5, 0, 0.5]
    each_master = Server.each_master

    async def slow(server: Server, *args: Any) -> Any:
        if args == ("TIME",) and looks:
            await asyncio.sleep(looks.pop())
        return await each_master(server, *args)

    monkeypatch.setattr(Server, "each_master", slow)
    async with world(cluster, SHARDS) as w:
        names = {on_shard(0): config("order/created", cancel=[{"event": "order/voided"}])}
        await w.functions(**names)
        async with coordinator(w) as c:
            assert not looks, "they are compared before the first event is handled"
            runs = []
            for shard in range(SHARDS):
                await w.send(Event("order/voided"), shard=(shard + 1) % SHARDS)
                await settled(c)
                (event,) = await w.send(Event("order/created"), shard=shard)
                await settled(c)
                runs.append(w.run_of(event, on_shard(0)))
            states = [(await w.run(run))["st"] for run in runs]
            assert states == [b"k"] * (SHARDS - 1) + [b"q"], (
                "each ends the one before it, and no later one"
            )
