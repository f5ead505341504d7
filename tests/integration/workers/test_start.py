"""A worker that can't start leaves nothing behind; stopping it is no error, whatever it had opened."""

import asyncio
import threading

import pytest

from stepwell import Client, TriggerEvent
from stepwell.errors import ConfigError, NamespaceError, ServerError, ServerUnavailableError
from stepwell_engine.embedded import EmbeddedServer
from stepwell_workers.fetch import Fetcher
from stepwell_workers.heartbeat import Heartbeat
from stepwell_workers.worker import Worker
from tests.integration.coordination import until

pytestmark = pytest.mark.anyio


def app(url: str) -> Client:
    client = Client(app_id="shop", redis_url=url)

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        pass

    return client


async def quiet(server: EmbeddedServer) -> None:
    """Nothing of a worker is left: no connection, no heartbeat, no task."""
    assert [t.name for t in threading.enumerate() if "heartbeat" in t.name] == []

    async def alone() -> bool:
        return b"stepwell" not in await asyncio.to_thread(server.command, "CLIENT", "LIST")

    await until(alone)
    assert [task for task in asyncio.all_tasks() if "stepwell_" in repr(task)] == []


async def test_stop_before_start(server: EmbeddedServer) -> None:
    worker = Worker([app(server.url)])
    await worker.stop()
    await worker.drain()


async def test_no_server() -> None:
    worker = Worker([app("redis://127.0.0.1:1")])
    with pytest.raises(ServerUnavailableError):
        await worker.start()
    await worker.stop()
    await worker.drain()


async def test_no_functions(server: EmbeddedServer) -> None:
    worker = Worker([Client(app_id="shop", redis_url=server.url)])
    with pytest.raises(ConfigError, match="the clients have no functions"):
        await worker.start()
    await worker.stop()
    await quiet(server)


async def test_another_number_of_shards(server: EmbeddedServer) -> None:
    worker = Worker([app(server.url)], namespace="one", shards=1)
    await worker.start()
    await worker.stop()
    wrong = Worker([app(server.url)], namespace="one", shards=2)
    with pytest.raises(NamespaceError):
        await wrong.start()
    await wrong.stop()
    await quiet(server)


@pytest.mark.parametrize(("part", "name"), [(Heartbeat, "alive"), (Fetcher, "bell_groups")])
async def test_it_can_be_started_again(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, part: type, name: str
) -> None:
    def broken(self: object) -> None:
        raise ServerError("not just now")

    worker = Worker([app(server.url)])
    with monkeypatch.context() as patch:
        patch.setattr(part, name, broken)
        with pytest.raises(ServerError, match="not just now"):
            await worker.start()
    await worker.stop()
    await quiet(server)
    await worker.start()
    assert worker.idle
    await worker.stop()
    await worker.stop()
    await quiet(server)
