"""Servers shared by a module's tests, and one script that shows order and repetition."""

from collections.abc import AsyncIterator, Iterator

import pytest

from stepwell_engine.embedded import EmbeddedCluster, EmbeddedServer
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedServer]:
    """A server that tests may fill but not harm."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def own() -> Iterator[EmbeddedServer]:
    """A server to kill, with its data on disk."""
    with EmbeddedServer(appendonly=True, appendfsync="always") as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster() as servers:
        yield servers


@pytest.fixture
async def server(redis: EmbeddedServer) -> AsyncIterator[Server]:
    redis.command("FLUSHALL")
    opened = await Server.open(redis.url)
    yield opened
    await opened.aclose()


@pytest.fixture
def append() -> Script:
    """Appends ARGV[1] once, however often it is sent: idempotent, as the transitions are."""
    source = """
    if redis.call('SADD', KEYS[1] .. ':seen', ARGV[1]) == 1 then
      redis.call('RPUSH', KEYS[1], ARGV[1])
    end
    return redis.call('LLEN', KEYS[1])"""
    return Script("append", source)
