"""`Client` against a real server: what it sends, and what it refuses before anything is asked."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from stepwell.client import Client
from stepwell.errors import (
    ConfigError,
    DurationError,
    EventInvalidError,
    LimitExceededError,
    NamespaceError,
    ServerUnavailableError,
    UnserializableError,
)
from stepwell.events import Event, SendEventsResult, decode_event
from stepwell.ids import run_id, ulid_ms
from stepwell.limits import Limits
from stepwell.middleware import Middleware, MiddlewareSync
from stepwell_engine.embedded import EmbeddedServer, free_port
from stepwell_engine.store.store import Store
from tests.integration.client.conftest import Hands

pytestmark = pytest.mark.anyio

NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture
async def client(store: Store, fresh: EmbeddedServer) -> AsyncIterator[Client]:
    async with Client(app_id="shop", redis_url=fresh.url) as made:
        yield made


async def test_send_returns_ids_in_order(client: Client, hands: Hands) -> None:
    one = await client.send(Event(name="a/b", data={"n": 1}))
    more = await client.send([Event(name="a/b", data={"n": n}) for n in (2, 3)])
    found = {e["i"].decode(): e for e in await hands.entries()}
    numbers = [decode_event(found[i]["d"], i, ulid_ms(i)).data["n"] for i in [*one, *more]]
    assert numbers == [1, 2, 3]
    assert await client.send([]) == []


async def test_a_users_id_is_sent_once_in_all_apps(client: Client, hands: Hands) -> None:
    (first,) = await client.send(Event(name="a/b", id="order-7"))
    assert await client.send(Event(name="x/y", id="order-7")) == [first]
    assert len(await hands.entries()) == 1


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ("a/b", "events: 'a/b' is a str; write Event"),
        ({"name": "a/b"}, "events: .* is a dict; write Event"),
        (7, "events: 7 is a int; write Event"),
        ([Event(name="a/b"), "x"], "events: 'x' is a str; write Event"),
        (Event(name="inngest/x"), "prefix kept for internal events"),
        (Event(name="a/b", data={"x": {1, float("nan")}}), r"event.data.x.* not a finite number"),
    ],
)
async def test_nothing_is_sent_when_an_event_is_wrong(
    client: Client, hands: Hands, events: Any, words: str
) -> None:
    with pytest.raises(EventInvalidError, match=words):
        await client.send(events)
    with pytest.raises(EventInvalidError, match=words):
        await client.send([Event(name="a/b"), *(events if isinstance(events, list) else [events])])
    assert await hands.entries() == []


async def test_limits_are_named(store: Store, fresh: EmbeddedServer) -> None:
    limits = Limits(event=100)
    async with Client(app_id="shop", redis_url=fresh.url, limits=limits) as client:
        with pytest.raises(LimitExceededError, match=r"raise Limits\(event=\.\.\.\)"):
            await client.send(Event(name="a/b", data={"x": "y" * 200}))
        with pytest.raises(LimitExceededError, match="the bytes of data: 20"):
            await client.send_signal("s", "y" * 200)
        with pytest.raises(LimitExceededError, match="the bytes of data"):
            await client.invoke("shop-ship", data={"x": "y" * 200})


async def test_sends_of_one_turn_share_round_trips(client: Client, hands: Hands) -> None:
    await client.send(Event(name="a/b"))
    gateway: Any = client._connections.ready()
    counters = gateway.store.server.counters
    before = counters.round_trips
    await asyncio.gather(*(client.send(Event(name="a/b")) for _ in range(100)))
    # The first leaves at once. With it the others of its shard have waited; those of other shards leave together, and so do the rest.
    assert counters.round_trips - before <= (2 if len(gateway.store.shards) == 1 else 4)
    assert len(await hands.entries()) == 101


async def test_middleware_sees_what_is_sent(store: Store, fresh: EmbeddedServer) -> None:
    seen: list[str] = []

    class Outer(Middleware):
        async def before_send_events(self, events: list[Event]) -> None:
            seen.append(f"outer {len(events)}")
            events.append(Event(name="a/extra"))

        async def after_send_events(self, result: SendEventsResult) -> None:
            seen.append(f"outer {len(result.ids)} {result.error}")

    class Inner(MiddlewareSync):
        def before_send_events(self, events: list[Event]) -> None:
            seen.append(f"inner {len(events)}")

        def after_send_events(self, result: SendEventsResult) -> None:
            seen.append("inner")

    async with Client(app_id="shop", redis_url=fresh.url, middleware=[Outer]) as client:
        client.add_middleware(Inner)
        assert len(await client.send(Event(name="a/b"))) == 2
        assert seen == ["outer 1", "inner 2", "inner", "outer 2 None"]
        assert len(await client.send(Event(name="a/b"), skip_middleware=True)) == 1
        seen.clear()
        with pytest.raises(EventInvalidError):
            await client.send(Event(name="inngest/no"))
        assert seen[:3] == ["outer 1", "inner 2", "inner"]
        assert seen[3].startswith("outer 0 Event.name: 'inngest/no'")
        assert len(await asyncio.to_thread(client.send_sync, Event(name="a/b"))) == 2


async def test_a_send_survives_a_restart(tmp_path: Any) -> None:
    with EmbeddedServer(appendonly=True, appendfsync="always") as server:
        async with Client(app_id="shop", redis_url=server.url) as client:
            await client.send(Event(name="a/b"))
            server.kill()
            sending = [asyncio.create_task(client.send(Event(name="a/b"))) for _ in range(20)]
            await asyncio.to_thread(server.restart)
            assert len({i for ids in await asyncio.gather(*sending) for i in ids}) == 20
            assert server.command("XLEN", "{stepwell:0}:ev") == 21


async def test_a_send_ends_after_its_timeout() -> None:
    with EmbeddedServer() as server:
        async with Client(app_id="shop", redis_url=server.url, send_timeout="1s") as client:
            await client.send(Event(name="a/b"))
            server.kill()
            with pytest.raises(ServerUnavailableError, match="Is it running"):
                await client.send(Event(name="a/b"))


async def test_an_absent_server_is_said_at_once() -> None:
    async with Client(app_id="shop", redis_url=f"redis://127.0.0.1:{free_port()}") as client:
        with pytest.raises(ServerUnavailableError, match="stepwell dev"):
            await client.send(Event(name="a/b"))
        with pytest.raises(ServerUnavailableError):
            await asyncio.to_thread(client.send_sync, Event(name="a/b"))


async def test_a_wrong_shard_count_is_said(store: Store, fresh: EmbeddedServer) -> None:
    async with Client(app_id="shop", redis_url=fresh.url, shards=7) as client:
        with pytest.raises(NamespaceError, match=r"not 7.*use another namespace="):
            await client.send(Event(name="a/b"))


async def test_wrong_arguments_are_named_before_anything_is_asked() -> None:
    client = Client(app_id="shop", redis_url=NOWHERE)
    ghost = run_id(1, "e", "shop", "ship", 0)
    wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (ConfigError, "function: 7; pass what", lambda: client.invoke(7)),  # type: ignore[call-overload]  # wrong on purpose
        (ConfigError, "data: .*is a list; write a dict", lambda: client.invoke("a-b", data=[])),  # type: ignore[call-overload]  # wrong on purpose
        (DurationError, "timeout: 1.5 is a float", lambda: client.invoke("a-b", timeout=1.5)),  # type: ignore[call-overload]  # wrong on purpose
        (ConfigError, "run_id: ''", lambda: client.get_run("")),
        (ConfigError, "run_id: None", lambda: client.cancel_run(None)),  # type: ignore[arg-type]  # wrong on purpose
        (ConfigError, "reason: 3", lambda: client.cancel_run(ghost, reason=3)),  # type: ignore[arg-type]  # wrong on purpose
        (DurationError, "timeout: '5x'", lambda: client.wait_for_run(ghost, timeout="5x")),
        (ConfigError, r"limit=\): 0; write an int from 1", lambda: client.list_runs(limit=0)),
        (
            ConfigError,
            r"status=\): 'odd'; write one of 'queued'",
            lambda: client.list_runs(status="odd"),
        ),
        (ConfigError, r"signal=\): ''", lambda: client.send_signal("")),
        (DurationError, "hold: -1 is negative", lambda: client.send_signal("s", hold=-1)),
        (UnserializableError, "data.x: ", lambda: client.send_signal("s", {"x": object()})),
        (ConfigError, "event_id: 5", lambda: client.get_event(5)),  # type: ignore[arg-type]  # wrong on purpose
    ]
    for kind, words, call in wrong:
        with pytest.raises(kind, match=words):
            await call()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"app_id": ""}, r"Client\(app_id=\)"),
        ({"redis_url": 7}, r"Client\(redis_url=\): 7"),
        ({"namespace": "a b"}, "namespace='a b'"),
        ({"shards": 0}, "shards=0"),
        ({"middleware": [7]}, "middleware: 7; write a Middleware class"),
        ({"limits": {}}, r"Client\(limits=\): {}; write Limits"),
        ({"checkpointing": 5}, r"Client\(checkpointing=\): 5; write Checkpointing"),
        ({"app_version": 2}, r"Client\(app_version=\): 2"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Client(**({"app_id": "shop"} | settings))


def test_a_send_timeout_is_bounded() -> None:
    with pytest.raises(DurationError, match=r"Client\(send_timeout=\).*the least is 1s"):
        Client(app_id="shop", send_timeout="10ms")


def test_the_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(app_id="shop")
    monkeypatch.delenv("STEPWELL_REDIS_URL", raising=False)
    assert client.redis_url == "redis://localhost:6379/0"
    monkeypatch.setenv("STEPWELL_REDIS_URL", "valkey://there")
    assert client.redis_url == "valkey://there"
    assert Client(app_id="shop", redis_url="redis://here").redis_url == "redis://here"


def test_functions_are_listed_with_their_failure_handlers() -> None:
    client = Client(app_id="shop", redis_url=NOWHERE)

    def failed(ctx: Any) -> None: ...

    @client.create_function(fn_id="ship", on_failure=failed)
    def ship(ctx: Any) -> None: ...

    assert list(client.functions) == ["ship", "ship-failure"]
    with pytest.raises(ConfigError, match="already"):
        client.create_function(fn_id="ship")(failed)


def test_importing_the_client_loads_no_server_code() -> None:
    program = """
import sys, stepwell.client
stepwell.client.Client(app_id="a")
heavy = {"redis", "hiredis", "stepwell_engine", "celpy", "pydantic"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
