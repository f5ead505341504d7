"""Masters that change: a Sentinel's failover, and a replica that takes over in a Cluster."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.errors import ServerUnavailableError
from stepwell_engine.embedded import EmbeddedCluster, EmbeddedServer, find_binary, free_port
from stepwell_engine.store.cluster import slot_of
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script
from stepwell_engine.store.url import parse
from stepwell_engine.store.wire import Wire

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # each test waits for the servers' own timers; once is enough


@pytest.fixture
def pair() -> Iterator[tuple[EmbeddedServer, EmbeddedServer]]:
    with (
        EmbeddedServer() as master,
        EmbeddedServer(options={"replicaof": f"127.0.0.1 {master.port}"}) as replica,
    ):
        yield master, replica


@pytest.fixture
def sentinel(pair: tuple[EmbeddedServer, EmbeddedServer], tmp_path: Path) -> Iterator[int]:
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor jobs 127.0.0.1 {pair[0].port} 1\n"
        "sentinel down-after-milliseconds jobs 1000\n"
    )
    process = subprocess.Popen(
        [str(find_binary()), str(config), "--sentinel"], stdout=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


async def ask(port: int, *args: str) -> object:
    """Asks the Sentinel, which may only just be starting."""
    endpoint = parse(f"redis://127.0.0.1:{port}").seeds[0]
    while True:
        try:
            wire = await Wire.connect(endpoint, name="test", timeout=5)
            break
        except ServerUnavailableError:
            continue
    try:
        return await wire.call(*args)
    finally:
        await wire.aclose()


async def test_sentinel_failover(
    pair: tuple[EmbeddedServer, EmbeddedServer], sentinel: int, append: Script
) -> None:
    master, replica = pair
    while "slaves=1" not in str(await ask(sentinel, "INFO")):
        pass  # the Sentinel asks the master for its replicas in its own time
    dead = free_port()
    url = f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{sentinel}/jobs"
    server = await Server.open(url)
    assert server.nodes()[0].port == master.port
    await server.script("l", append, ["l"], [0])
    assert await server.call("l", "WAIT", 1, 0) == 1

    master.kill()
    calls = [asyncio.ensure_future(server.script("l", append, ["l"], [i])) for i in range(1, 50)]
    await asyncio.gather(*calls)
    assert server.nodes()[0].port == replica.port
    assert await server.call("l", "LRANGE", "l", 0, -1) == [str(i).encode() for i in range(50)]
    await server.aclose()


async def test_sentinel_that_knows_nothing(
    pair: tuple[EmbeddedServer, EmbeddedServer], sentinel: int
) -> None:
    await ask(sentinel, "PING")
    with pytest.raises(ServerUnavailableError, match="knows no master of 'other'"):
        await Server.open(f"redis+sentinel://127.0.0.1:{sentinel}/other")


async def test_a_replica_takes_over_in_a_cluster(append: Script) -> None:
    with EmbeddedCluster() as cluster:
        replica = cluster.add_replica(0)
        server = await Server.open(cluster.url)
        keys = (f"{{{i}}}" for i in range(100))
        key = next(k for k in keys if cluster.owner(slot_of(k)) is cluster.servers[0])
        await server.script(key, append, [key], [0])
        assert await server.call(key, "WAIT", 1, 0) == 1

        cluster.servers[0].kill()
        waiting = asyncio.ensure_future(server.script(key, append, [key], [1]))
        await asyncio.sleep(0)
        assert replica.command("CLUSTER", "FAILOVER", "TAKEOVER") == b"OK"
        assert await waiting == 2
        assert replica.port in {n.port for n in server.nodes()}
        await server.aclose()
