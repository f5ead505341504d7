"""One connection: batching, errors, loss, back-pressure."""

import asyncio
import socket

import pytest
from redis.exceptions import NoScriptError, ResponseError

from stepwell.errors import ServerAuthError, ServerUnavailableError
from stepwell_engine.embedded import EmbeddedServer, free_port
from stepwell_engine.store.url import ServerUrlError, parse
from stepwell_engine.store.wire import Wire

pytestmark = pytest.mark.anyio


async def dial(url: str, *, within: float = 5.0, reply_timeout: float | None = 30.0) -> Wire:
    endpoint = parse(url).seeds[0]
    return await Wire.connect(endpoint, name="test", timeout=within, reply_timeout=reply_timeout)


async def test_commands_of_one_turn_are_one_round_trip(redis: EmbeddedServer) -> None:
    wire = await dial(redis.url)
    before = wire.counters.round_trips

    async def one(i: int) -> int:
        return int(await wire.call("INCRBY", f"n{i}", i))

    assert await asyncio.gather(*(one(i) for i in range(1, 201))) == list(range(1, 201))
    assert wire.counters.round_trips - before == 1
    redis.command("FLUSHALL")
    await wire.aclose()


async def test_a_call_that_is_pushed_leaves_at_once_unless_replies_are_owed(
    redis: EmbeddedServer,
) -> None:
    wire = await dial(redis.url)
    before = wire.counters.round_trips
    first = wire.call("INCR", "n")
    wire.push()
    assert wire.counters.round_trips - before == 1
    others = []
    for _ in range(3):
        others.append(wire.call("INCR", "n"))
        wire.push()
    assert wire.counters.round_trips - before == 1, "they wait for each other"
    assert await asyncio.gather(first, *others) == [1, 2, 3, 4]
    assert wire.counters.round_trips - before == 2
    redis.command("FLUSHALL")
    await wire.aclose()


async def test_argument_kinds_and_binary_safety(redis: EmbeddedServer) -> None:
    wire = await dial(redis.url)
    blob = bytes(range(256)) * 1000
    await wire.call("SET", "blob", blob)
    assert await wire.call("GET", "blob") == blob
    assert await wire.call("ECHO", 1.5) == b"1.5"
    assert await wire.call("GET", "missing") is None
    assert await wire.call("ECHO", "é") == "é".encode()
    await wire.aclose()


async def test_error_replies_reach_only_their_call(redis: EmbeddedServer) -> None:
    wire = await dial(redis.url)
    replies = await asyncio.gather(
        wire.call("PING"),
        wire.call("NOSUCH"),
        wire.call("EVALSHA", "0" * 40, 0),
        wire.call("PING"),
        return_exceptions=True,
    )
    assert replies[0] == replies[3] == b"PONG"
    assert isinstance(replies[1], ResponseError)
    assert isinstance(replies[2], NoScriptError)
    await wire.aclose()


async def test_a_cancelled_call_does_not_shift_replies(redis: EmbeddedServer) -> None:
    wire = await dial(redis.url)
    lost = wire.call("ECHO", "lost")
    kept = wire.call("ECHO", "kept")
    lost.cancel()
    assert await kept == b"kept"
    await wire.aclose()


async def test_killing_the_server_fails_what_is_owed(own: EmbeddedServer) -> None:
    wire = await dial(own.url, reply_timeout=None)
    owed = [wire.call("BLPOP", "never", 0), wire.call("PING")]
    await asyncio.sleep(0)  # let them leave
    own.kill()
    failed = await asyncio.gather(*owed, return_exceptions=True)
    assert all(isinstance(f, ServerUnavailableError) for f in failed)
    assert wire.closed
    with pytest.raises(ServerUnavailableError, match="closed"):
        await wire.call("PING")


async def test_close_fails_what_is_owed_and_can_be_repeated(redis: EmbeddedServer) -> None:
    wire = await dial(redis.url)
    owed = wire.call("PING")
    await wire.aclose()
    await wire.aclose()
    with pytest.raises(ServerUnavailableError, match="closed by this process"):
        await owed


async def test_a_silent_server_is_given_up(own: EmbeddedServer) -> None:
    wire = await dial(own.url, reply_timeout=0.2)
    own.pause()
    with pytest.raises(ServerUnavailableError, match=r"no reply for 0.2 s"):
        await wire.call("PING")
    own.resume()


async def test_nothing_is_lost_when_the_server_reads_slowly(own: EmbeddedServer) -> None:
    wire = await dial(own.url)
    own.pause()
    calls = [wire.call("SET", f"k{i}", b"x" * 1_000_000) for i in range(30)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late = wire.call("EXISTS", *(f"k{i}" for i in range(30)))
    own.resume()
    assert await asyncio.gather(*calls) == [b"OK"] * 30
    assert await late == 30
    await wire.aclose()


async def test_too_much_unsent_is_refused(
    redis: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell_engine.store.wire.MAX_UNSENT", 1000)
    wire = await dial(redis.url)
    fits, refused = wire.call("PING"), wire.call("ECHO", "x" * 1000)
    assert await fits == b"PONG"
    with pytest.raises(ServerUnavailableError, match="doesn't read"):
        await refused
    await wire.aclose()


async def test_no_server() -> None:
    with pytest.raises(ServerUnavailableError, match="Is it running"):
        await dial(f"redis://127.0.0.1:{free_port()}")


async def test_a_peer_that_never_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ServerUnavailableError, match=r"no answer within 0.1 s"):
            await dial(f"redis://127.0.0.1:{silent.getsockname()[1]}", within=0.1)


async def test_a_peer_that_speaks_something_else() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    web = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = web.sockets[0].getsockname()[1]
    with pytest.raises(ServerUnavailableError, match="protocol"):
        await dial(f"redis://127.0.0.1:{port}")
    web.close()
    await web.wait_closed()


async def test_logging_in() -> None:
    with EmbeddedServer(password="p@ss word/1") as server:
        wire = await dial(server.url.removesuffix("/0") + "/3")
        assert await wire.call("CLIENT", "GETNAME") == b"test"
        assert b" db=3 " in await wire.call("CLIENT", "LIST", "ID", await wire.call("CLIENT", "ID"))
        await wire.aclose()
        with pytest.raises(ServerAuthError, match="user or password is wrong"):
            await dial(f"redis://:wrong@127.0.0.1:{server.port}")
        with pytest.raises(ServerAuthError, match="asks for a password"):
            await dial(f"redis://127.0.0.1:{server.port}")
        with pytest.raises(ServerUrlError, match="no database 99"):
            await dial(server.url.removesuffix("/0") + "/99")


async def test_a_password_where_none_is_set(redis: EmbeddedServer) -> None:
    with pytest.raises(ServerAuthError, match="leave the password out"):
        await dial(f"redis://:secret@127.0.0.1:{redis.port}")


async def test_missing_permission_names_the_user(redis: EmbeddedServer) -> None:
    redis.command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@connection", "+get")
    wire = await dial(f"redis://reader:pw@127.0.0.1:{redis.port}")
    with pytest.raises(ServerAuthError, match="'reader' lacks a permission"):
        await wire.call("SET", "a", "b")
    await wire.aclose()


async def test_unix_socket() -> None:
    with EmbeddedServer(unix=True) as server:
        wire = await dial(server.url)
        assert await wire.call("PING") == b"PONG"
        await wire.aclose()
