"""A real three-master Cluster: routing, MOVED, ASK, blocking per slot."""

import asyncio

import pytest

from stepwell.errors import ServerUnavailableError
from stepwell_engine.embedded import EmbeddedCluster, EmbeddedServer
from stepwell_engine.store.cluster import slot_of
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(cluster: EmbeddedCluster):
    for one in cluster.servers:
        one.command("FLUSHALL")
    opened = await Server.open(cluster.url)
    yield opened
    await opened.aclose()


def node_id(server: EmbeddedServer) -> bytes:
    return bytes(server.command("CLUSTER", "MYID"))


def shift(cluster: EmbeddedCluster, slot: int) -> tuple[EmbeddedServer, EmbeddedServer]:
    """Begins to migrate `slot`; returns its source and target."""
    source = cluster.owner(slot)
    target = next(s for s in cluster.servers if s is not source)
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))
    return source, target


def settle(cluster: EmbeddedCluster, slot: int, target: EmbeddedServer) -> None:
    for one in [target, *(s for s in cluster.servers if s is not target)]:
        one.command("CLUSTER", "SETSLOT", slot, "NODE", node_id(target))


async def test_found_out_without_being_told(server: Server, cluster: EmbeddedCluster) -> None:
    assert server.is_cluster
    assert {n.port for n in server.nodes()} == {s.port for s in cluster.servers}
    assert set((await server.each_master("PING")).values()) == {b"PONG"}
    assert all(info.cluster for info in await server.check_server())


async def test_each_key_goes_to_its_owner(server: Server, append: Script) -> None:
    keys = [f"{{n:{i}}}:l" for i in range(30)]
    before = server.counters.round_trips
    await asyncio.gather(*(server.script(k, append, [k], [1]) for k in keys))
    # One write a node, one more for those that had to be connected first.
    assert server.counters.round_trips - before <= 3 * 3
    before = server.counters.round_trips
    assert await asyncio.gather(*(server.call(k, "LLEN", k) for k in keys)) == [1] * 30
    assert server.counters.round_trips - before == 3


async def test_moved_is_followed_and_remembered(
    server: Server, cluster: EmbeddedCluster, append: Script
) -> None:
    key = "{moved}:l"
    slot = slot_of(key)
    source, target = shift(cluster, slot)
    settle(cluster, slot, target)
    assert await server.script(key, append, [key], [1]) == 1
    assert await server.call(key, "LLEN", key) == 1
    commands = server.counters.commands
    assert await server.script(key, append, [key], [2]) == 2
    assert server.counters.commands - commands <= 2  # no detour (a table refresh may pass by)
    await server.call(key, "UNLINK", key, key + ":seen")
    settle(cluster, slot, source)


async def test_ask_is_followed_once(
    server: Server, cluster: EmbeddedCluster, append: Script
) -> None:
    key = "{asked}:l"
    slot = slot_of(key)
    source, target = shift(cluster, slot)
    # The keys aren't at the source, so it sends us to the target, which owns them only if ASKING.
    assert await server.script(key, append, [key], [1]) == 1
    assert await server.call(key, "LLEN", key) == 1
    assert await server.blocking(key, "BLPOP", key, 1, timeout=1) == [key.encode(), b"1"]
    settle(cluster, slot, target)
    assert await server.script(key, append, [key], [2]) == 1
    await server.call(key, "UNLINK", key, key + ":seen")
    settle(cluster, slot, source)


async def test_blocking_goes_to_the_owner(server: Server) -> None:
    for i in range(5):
        key = f"{{b:{i}}}:q"
        popping = asyncio.ensure_future(server.blocking(key, "BLPOP", key, 5, timeout=5))
        await server.call(key, "RPUSH", key, i)
        assert await popping == [key.encode(), str(i).encode()]


async def test_same_node_groups_by_slot(server: Server) -> None:
    assert server.same_node(["{a}:1", "{b}:1", "{a}:2"]) == [["{a}:1", "{a}:2"], ["{b}:1"]]


async def test_any_live_seed_will_do(cluster: EmbeddedCluster) -> None:
    dead = "127.0.0.1:1"
    server = await Server.open(f"redis://{dead},127.0.0.1:{cluster.servers[2].port}")
    assert len(server.nodes()) == 3
    await server.aclose()


async def test_a_dead_master_fails_only_its_slots(append: Script) -> None:
    options = {"cluster-require-full-coverage": "no"}
    with EmbeddedCluster(options=options) as cluster:
        server = await Server.open(cluster.url)
        keys = [f"{{{i}}}" for i in range(50)]
        await asyncio.gather(*(server.script(k, append, [k], [1]) for k in keys))
        dead = cluster.owner(slot_of(keys[0]))
        lost = [k for k in keys if cluster.owner(slot_of(k)) is dead]
        dead.kill()
        for key in keys:
            if key not in lost:
                assert await server.script(key, append, [key], [2]) == 2
        with pytest.raises(ServerUnavailableError):
            await server.script(lost[0], append, [lost[0]], [2], deadline=0.2)
        await server.aclose()
