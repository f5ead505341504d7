"""The lease that stands behind a bell: real workers on the real clock, which alone have it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stepwell import Client, Event, TriggerEvent
from stepwell.errors import ServerUnavailableError
from stepwell_engine.coordinator import Coordinator
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.node import Node
from stepwell_engine.store.store import Store
from stepwell_workers.fetch import Fetcher
from stepwell_workers.services import Services
from stepwell_workers.worker import Worker
from tests.integration import coordination
from tests.support.runs import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def server():
    with EmbeddedServer() as running:
        yield running


class Shop:
    """A client with one function, which notes its runs and waits for `release`, and a coordinator."""

    def __init__(self, url: str) -> None:
        self.client = Client(app_id="shop", redis_url=url)
        self.began: list[str] = []
        self.inside = self.most = 0
        self.release = asyncio.Event()

        @self.client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
        async def f(ctx):
            self.began.append(ctx.run_id)
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self.release.wait()
            self.inside -= 1
            return await ctx.step.run("one", int)

    async def send(self, count: int = 1) -> None:
        await self.client.send([Event("t/go")] * count)

    async def ended(self, count: int) -> None:
        async def created():
            page = await self.client.list_runs(fn_id="f", limit=count)
            return page.items if len(page.items) == count else None

        self.release.set()
        for run in await coordination.until(created):
            assert (await self.client.wait_for_run(run.id, timeout="20s")).output == 0
        assert len(self.began) == count


@asynccontextmanager
async def shop(url: str) -> AsyncIterator[Shop]:
    made, store = Shop(url), await Store.open(url)
    try:
        async with Coordinator(store):
            yield made
    finally:
        await made.client.aclose()
        await store.aclose()


@asynccontextmanager
async def serving(worker: Worker) -> AsyncIterator[Worker]:
    await worker.start()
    try:
        await standing(worker)
        yield worker
    finally:
        await worker.stop()


async def standing(worker: Worker) -> None:
    await until(lambda: worker._fetcher._standing.kept == worker._fetcher._standing.share)


async def test_an_idle_worker_begins_what_a_ring_brings_without_asking(server, monkeypatch):
    asking = asyncio.Event()

    async def later(*_):
        await asking.wait()
        return 0

    async with shop(server.url) as made, serving(Worker([made.client])):
        monkeypatch.setattr(Fetcher, "_lease", later)
        await made.send()
        await until(lambda: made.began)
        asking.set()
        await made.ended(1)


@pytest.mark.parametrize("slots", [1, 2, 3, 40])
async def test_no_more_runs_than_slots(server, slots):
    async with shop(server.url) as made, serving(Worker([made.client], concurrency=slots)):
        for _ in range(5):
            await made.send(20)
        await until(lambda: made.inside == slots)
        await made.ended(100)
        assert made.most == slots


@pytest.mark.parametrize("slots", [2, 10, 40])
async def test_no_more_runs_than_slots_when_work_was_there_before(server, slots):
    async with shop(server.url) as made:
        async with serving(Worker([made.client])):
            pass  # the function is known now
        await made.send(100)
        await until(lambda: server.command("ZCARD", "{stepwell:0}:q:1::s") == 100)
        worker = Worker([made.client], concurrency=slots)
        await worker.start()
        try:
            await until(lambda: made.inside == slots)
            for _ in range(20):
                await made.client.list_runs()
            await made.ended(100)
            assert made.most == slots
        finally:
            await worker.stop()


async def test_who_stops_hands_on_the_ring_it_got(server):
    async with (
        shop(server.url) as made,
        serving(Worker([made.client])) as older,
        serving(Worker([made.client])),
    ):
        # Its blocking call is the older one: the bell's next ring is its.
        stopping = asyncio.create_task(older.stop())
        await made.send()
        await until(lambda: made.began, patience=3)
        await stopping
        await made.ended(1)


async def test_a_run_that_is_still_read_when_the_worker_stops_goes_back(server, monkeypatch):
    read, reading = Services.read_run, asyncio.Event()

    async def slowly(services, shard, run_id):
        reading.set()
        await until(lambda: services.draining)
        return await read(services, shard, run_id)

    monkeypatch.setattr(Services, "read_run", slowly)
    async with shop(server.url) as made, serving(Worker([made.client])) as worker:
        made.release.set()
        await made.client.send(Event("t/go", {"text": "x" * 100_000}))
        await reading.wait()
        await worker.stop()
        assert server.command("ZCARD", "{stepwell:0}:lease") == 0


async def test_scripts_that_are_gone_cost_a_round_trip_only(server):
    async with shop(server.url) as made, serving(Worker([made.client])):
        server.command("FUNCTION", "FLUSH")
        await made.send()
        await until(lambda: made.began)
        await made.ended(1)


async def test_what_it_leased_as_the_worker_stops_goes_back_at_once(server, monkeypatch):
    stand = Node.stand
    stopping: list[asyncio.Task[None]] = []

    async def late(node, *args, **more):
        replies = await stand(node, *args, **more)
        if replies[1] and not stopping:
            stopping.append(asyncio.create_task(worker.stop()))
            await until(lambda: worker.services.draining)
        return replies

    monkeypatch.setattr(Node, "stand", late)
    async with shop(server.url) as made:
        made.release.set()
        worker = Worker([made.client])
        async with serving(worker):
            await made.send()
            await until(lambda: stopping)
            await stopping[0]
            assert server.command("ZCARD", "{stepwell:0}:lease") == 0
            assert len(made.began) == 1
        async with serving(Worker([made.client])):
            [run] = (await made.client.list_runs(fn_id="f")).items
            assert (await made.client.wait_for_run(run.id, timeout="5s")).output == 0


async def test_a_worker_that_has_stopped_leases_nothing(server):
    async with shop(server.url) as made:
        for _ in range(20):
            worker = Worker([made.client])
            await worker.start()
            await asyncio.gather(made.send(), worker.stop())
            assert server.command("ZCARD", "{stepwell:0}:lease") == 0
            await until(lambda: server.command("XLEN", "{stepwell:0}:ev") == 0)
            assert server.command("ZCARD", "{stepwell:0}:lease") == 0


async def test_a_worker_that_stops_while_it_still_connects(server, monkeypatch):
    take, connecting, connected = Node.take, asyncio.Event(), asyncio.Event()

    async def slowly(node, label):
        if label == "bell":
            connecting.set()
            await connected.wait()
        return await take(node, label)

    monkeypatch.setattr(Node, "take", slowly)
    async with shop(server.url) as made:
        worker = Worker([made.client])
        await worker.start()
        await connecting.wait()
        stopping = asyncio.create_task(worker.stop())
        await until(lambda: worker._fetcher.stopping)
        connected.set()
        async with asyncio.timeout(3):
            await stopping


async def test_a_server_that_forbids_client_kill(server):
    server.command("ACL", "SETUSER", "default", "-client|kill")
    async with shop(server.url) as made, serving(Worker([made.client])):
        await made.send()
        await until(lambda: made.began)
        await made.ended(1)
    assert b"stepwell-worker" not in server.command("CLIENT", "LIST")


async def test_a_server_that_goes_away_meanwhile():
    with EmbeddedServer(appendonly=True, appendfsync="always") as server:
        await away_and_back(server)


async def away_and_back(server):
    async with shop(server.url) as made, serving(Worker([made.client])) as worker:
        server.kill()
        await until(lambda: not worker._fetcher._standing.kept)
        server.restart()
        async with asyncio.timeout(20):
            while True:
                try:
                    await made.send()
                    break
                except ServerUnavailableError:
                    pass
        await until(lambda: made.began, patience=20)


async def test_a_cluster_and_several_shards_have_none(server):
    store = await Store.open(server.url, namespace="wide", shards=2)
    await store.aclose()
    client = Client(app_id="shop", redis_url=server.url, namespace="wide", shards=2)

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        pass

    worker = Worker([client], namespace="wide", shards=2)
    await worker.start()
    await asyncio.sleep(0.05)
    assert worker._fetcher._standing.kept == 0
    await worker.stop()
