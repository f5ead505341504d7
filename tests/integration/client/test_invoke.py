"""`client.invoke` against a real server: the result, the ways in which there is none, and who is asked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from stepwell.client import Client
from stepwell.errors import (
    FunctionNotFoundError,
    InvokeTimeoutError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
)
from stepwell.events import decode_event
from stepwell.function import reference_function
from stepwell.ids import run_id, ulid_ms
from stepwell.records import RunStatus
from stepwell.serde.values import unpack
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.store import Store
from tests.integration.client.conftest import Hands

pytestmark = pytest.mark.anyio

NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture
async def client(store: Store, fresh: EmbeddedServer) -> AsyncIterator[Client]:
    async with Client(app_id="shop", redis_url=fresh.url) as made:
        yield made


@dataclass
class Receipt:
    number: int


async def serve(hands: Hands, letter: str, value: object) -> None:
    """Be coordinator and worker for one invoked run."""
    while True:
        invoked = [e for e in await hands.entries() if e["k"] == b"v"]
        if invoked:
            break
    event_id = invoked[0]["i"].decode()
    app, fn, parent = unpack(invoked[0]["x"])
    assert (app, parent) == ("shop", "")
    run = run_id(ulid_ms(event_id), event_id, app, fn, int(invoked[0]["shard"]))
    await hands.create(run, fn, invoked[0]["d"], event_id)
    await hands.finish(run, letter, value)


async def invoke(hands: Hands, call: Any, letter: str, value: object) -> Any:
    result, _ = await asyncio.gather(call, serve(hands, letter, value))
    return result


async def test_invoke_gives_the_functions_result(client: Client, hands: Hands) -> None:
    @client.create_function(fn_id="ship")
    async def ship(ctx: Any) -> Receipt:
        return Receipt(1)

    made = await invoke(
        hands, client.invoke(ship, data={"n": 1}, timeout="30s"), "c", {"number": 3}
    )
    assert made == Receipt(3)
    (entry,) = [e for e in await hands.entries() if e["k"] == b"v"]
    event = decode_event(entry["d"], entry["i"].decode(), 1)
    assert event.name == "inngest/function.invoked"
    assert event.data == {"n": 1, "_inngest": {"fn_id": "shop-ship"}}


@pytest.mark.parametrize(
    "function", ["shop-ship", reference_function(app_id="shop", function_id="ship")]
)
async def test_invoke_by_name(client: Client, hands: Hands, function: Any) -> None:
    assert await invoke(hands, client.invoke(function), "c", {"number": 3}) == {"number": 3}


async def test_a_failed_run_raises_its_error(client: Client, hands: Hands) -> None:
    error = {"code": "unknown", "name": "ValueError", "message": "no stock", "stack": "Trace"}
    with pytest.raises(RunFailedError, match="no stock") as caught:
        await invoke(hands, client.invoke("shop-ship"), "f", error)
    assert (caught.value.name, caught.value.stack) == ("ValueError", "Trace")
    assert (await client.get_run(caught.value.run_id)).status is RunStatus.FAILED


async def test_a_cancelled_run_raises(client: Client, hands: Hands) -> None:
    async def cancel() -> None:
        while not (page := await client.list_runs()).items:
            await serve_start(hands)
        assert await client.cancel_run(page.items[0].id, reason="sold out") == "cancelled"

    with pytest.raises(RunCancelledError, match="sold out"):
        await asyncio.gather(client.invoke("shop-ship"), cancel())


async def serve_start(hands: Hands) -> None:
    for entry in await hands.entries():
        event_id = entry["i"].decode()
        if entry["k"] == b"v":
            run = run_id(ulid_ms(event_id), event_id, "shop", "ship", int(entry["shard"]))
            await hands.create(run, "ship", entry["d"], event_id)


async def test_an_invoke_that_is_late_names_the_run(client: Client, hands: Hands) -> None:
    with pytest.raises(InvokeTimeoutError, match=r"Timed out waiting.*after 50ms; it goes on"):
        await client.invoke("shop-ship", timeout=50)
    await serve_start(hands)
    (run,) = (await client.list_runs(fn_id="ship", app_id="shop", status="queued")).items
    with pytest.raises(InvokeTimeoutError, match=rf"run {run.id} had not ended after 20ms"):
        await client.wait_for_run(run.id, timeout=20)
    waiting = asyncio.create_task(client.wait_for_run(run.id))
    await hands.finish(run.id, "c", "done")
    ended = await waiting
    assert (ended.output, ended.function_id) == ("done", "shop-ship")
    assert ended.status.ended


async def test_unknown_functions_and_runs(client: Client) -> None:
    with pytest.raises(FunctionNotFoundError, match="'shop-nothing'"):
        await client.invoke("shop-nothing")
    with pytest.raises(FunctionNotFoundError, match="'x' of app 'y'"):
        await client.invoke(reference_function(app_id="y", function_id="x"))
    with pytest.raises(RunNotFoundError, match="no run of namespace"):
        await client.get_run("x")
