"""A Cluster: each shard has its own slot, so its own blocking call; a failing read waits for nobody else's."""

from collections.abc import Iterator

import pytest

from stepwell.events import Event
from stepwell_engine.embedded import EmbeddedCluster
from tests.integration.coordination import (
    APP,
    SHARDS,
    config,
    coordinator,
    delivered,
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
