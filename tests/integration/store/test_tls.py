"""TLS: `rediss://` against a server that speaks it, with the right certificate, a wrong one, and none."""

import asyncio
from pathlib import Path

import pytest

from stepwell.client import Client
from stepwell.errors import ServerUnavailableError
from stepwell.events import Event
from stepwell.testing.engine import Engine
from stepwell.triggers import TriggerEvent
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script
from tests.support.tls import Authority, Front

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "ca.pem")


async def refusal(url: str, connect_timeout: float = 5.0) -> str:
    with pytest.raises(ServerUnavailableError) as caught:
        await Server.open(url, connect_timeout=connect_timeout)
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_scripts_and_blocking_calls(
    redis: EmbeddedServer, authority: Authority, append: Script, scheme: str
) -> None:
    redis.command("FLUSHALL")
    async with Front(redis.port, authority.context("127.0.0.1")).open() as front:
        url = f"{scheme}://127.0.0.1:{front.port}/0?ssl_ca_certs={authority.path}"
        server = await Server.open(url)
        try:
            await asyncio.gather(*(server.script("l", append, ["l"], [i]) for i in range(100)))
            big = b"x" * 300_000
            await server.call("big", "SET", "big", big)
            assert await server.call("big", "GET", "big") == big
            waiting = asyncio.create_task(server.blocking("q", "BLPOP", "q", 5, timeout=5))
            await server.call("q", "RPUSH", "q", "item")
            assert await waiting == [b"q", b"item"]
        finally:
            await server.aclose()
        assert front.handshakes == 2  # the shared connection, and one for what blocks


async def test_a_lost_connection_is_made_again(
    redis: EmbeddedServer, authority: Authority, append: Script
) -> None:
    redis.command("FLUSHALL")
    async with Front(redis.port, authority.context("127.0.0.1")).open() as front:
        url = f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority.path}"
        server = await Server.open(url)
        try:
            await server.script("l", append, ["l"], [1])
            front.cut()
            assert await server.script("l", append, ["l"], [2]) == 2
        finally:
            await server.aclose()


async def test_a_whole_run(redis: EmbeddedServer, authority: Authority) -> None:
    client = Client(app_id="shop")

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")
        return await ctx.step.run("one", lambda: "secret")

    async with Front(redis.port, authority.context("127.0.0.1")).open() as front:
        url = f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority.path}"
        async with Engine(client, shards=2, url=url) as engine:
            [event_id] = await engine.send(Event("t/go"))
            await engine.settle()
            await engine.advance("2h")
            assert (await engine.wait(event_id)).output == "secret"


async def test_a_certificate_of_another_authority(
    redis: EmbeddedServer, authority: Authority, tmp_path: Path
) -> None:
    other = Authority.make(tmp_path / "other.pem")
    async with Front(redis.port, authority.context("127.0.0.1")).open() as front:
        for query in (f"?ssl_ca_certs={other.path}", ""):
            said = await refusal(f"rediss://127.0.0.1:{front.port}/0{query}")
            assert f"Redis at 127.0.0.1:{front.port} is unavailable" in said
            assert "certificate verify failed" in said
            assert "?ssl_ca_certs=" in said
        assert front.handshakes == 0


async def test_a_certificate_for_another_name(redis: EmbeddedServer, authority: Authority) -> None:
    async with Front(redis.port, authority.context("redis.example.com")).open() as front:
        url = f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority.path}"
        said = await refusal(url)
        assert "certificate verify failed" in said
        assert "127.0.0.1" in said
        server = await Server.open(f"{url}&ssl_check_hostname=false")
        await server.aclose()


async def test_checks_may_be_turned_off(redis: EmbeddedServer, authority: Authority) -> None:
    async with Front(redis.port, authority.context("redis.example.com")).open() as front:
        server = await Server.open(f"rediss://127.0.0.1:{front.port}/0?ssl_cert_reqs=none")
        await server.aclose()


async def test_a_server_that_asks_for_a_certificate(
    redis: EmbeddedServer, authority: Authority, tmp_path: Path
) -> None:
    own = authority.ca.issue_cert("worker-1")
    key, chain = tmp_path / "key.pem", tmp_path / "cert.pem"
    own.private_key_pem.write_to_path(str(key))
    own.cert_chain_pems[0].write_to_path(str(chain))
    async with Front(redis.port, authority.context("127.0.0.1", ask=True)).open() as front:
        url = f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={authority.path}"
        assert "unavailable" in await refusal(url)
        server = await Server.open(f"{url}&ssl_certfile={chain}&ssl_keyfile={key}")
        await server.call("k", "SET", "k", "v")
        await server.aclose()


async def test_a_plain_server_behind_a_tls_url(redis: EmbeddedServer, authority: Authority) -> None:
    # Each waits for the other's word; nothing but the time tells.
    url = f"rediss://127.0.0.1:{redis.port}/0?ssl_ca_certs={authority.path}"
    said = await refusal(url, connect_timeout=0.5)
    assert f"Redis at 127.0.0.1:{redis.port} is unavailable" in said


async def test_a_tls_server_behind_a_plain_url(redis: EmbeddedServer, authority: Authority) -> None:
    async with Front(redis.port, authority.context("127.0.0.1")).open() as front:
        said = await refusal(f"redis://127.0.0.1:{front.port}/0")
        assert f"Redis at 127.0.0.1:{front.port} is unavailable" in said
