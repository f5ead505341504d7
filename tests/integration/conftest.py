"""A server for each module, and namespaces on it for tests that drive a coordinator by hand."""

from collections.abc import AsyncIterator, Iterator

import pytest

from stepwell_engine.embedded import EmbeddedServer
from tests.integration.coordination import SHARDS, World, world


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as running:
        yield running


@pytest.fixture
async def one(server: EmbeddedServer) -> AsyncIterator[World]:
    """A namespace of one shard."""
    async with world(server) as made:
        yield made


@pytest.fixture
async def four(server: EmbeddedServer) -> AsyncIterator[World]:
    """A namespace of four shards."""
    async with world(server, SHARDS) as made:
        yield made
