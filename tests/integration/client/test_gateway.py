"""What a client may ask of the engine, on one shard and on four."""

import asyncio

import pytest

from stepwell.errors import (
    ConfigError,
    FunctionNotFoundError,
    RunNotFoundError,
    SendEventsError,
    StreamFullError,
)
from stepwell.events import Event, encode_event
from stepwell.gateway import RunQuery
from stepwell.ids import event_shard, function_shard, run_id, ulid_ms, ulid_time_chars
from stepwell.records import ErrorInfo, RunStatus
from stepwell.serde.values import pack
from stepwell_engine import intake as module
from stepwell_engine.gateway import StoreGateway
from stepwell_engine.listing import decode_cursor
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import NewRun
from tests.integration.client.conftest import GROUP, Hands

pytestmark = pytest.mark.anyio


def query(**more: object) -> RunQuery:
    plain: dict[str, object] = {
        "app_id": None,
        "fn_id": None,
        "status": None,
        "limit": 50,
        "cursor": "",
    }
    return RunQuery(**(plain | more))  # type: ignore[arg-type]  # the test's own dict


async def send(gateway: StoreGateway, seed: str, *events: Event) -> list[str]:
    return await gateway.send(events, [encode_event(e) for e in events], seed=seed)


async def start(gateway: StoreGateway, hands: Hands, seed: str, fn: str = "ship") -> str:
    """Invoke and let the coordinator's hands create the run."""
    encoded = encode_event(Event("inngest/function.invoked", {"seed": seed}))
    run = await gateway.start("shop", fn, encoded, seed=seed)
    event_id = next(
        e["i"].decode()
        for e in await hands.entries()
        if e["k"] == b"v"
        and run == run_id(ulid_ms(e["i"].decode()), e["i"].decode(), "shop", fn, int(e["shard"]))
    )
    await hands.create(run, fn, encoded, event_id)
    return run


async def test_events_are_accepted_in_order_with_ids(gateway: StoreGateway, hands: Hands) -> None:
    ids = await send(gateway, "seed", *(Event("a/b", {"n": n}) for n in range(5)))
    assert ids == sorted(ids)
    assert [e["i"].decode() for e in await hands.entries()] == ids
    shards = {e["shard"] for e in await hands.entries()}
    assert shards == {str(event_shard("seed", len(hands.store.shards))).encode()}


async def test_the_same_seed_sends_once(gateway: StoreGateway, hands: Hands) -> None:
    events = [Event("a/b"), Event("a/b", id="x"), Event("a/b", id="y")]
    first = await send(gateway, "seed", *events)
    assert await send(gateway, "seed", *events) == first
    assert len(await hands.entries()) == 3


async def test_a_duplicate_id_gives_the_first_events_id(
    gateway: StoreGateway, hands: Hands
) -> None:
    (first,) = await send(gateway, "1", Event("a/b", id="order-7"))
    second = await send(gateway, "2", Event("c/d", id="order-7"), Event("c/d", id="order-8"))
    assert second[0] == first
    assert second[1] != first
    assert len(await hands.entries()) == 2


async def test_sends_of_one_turn_share_a_script(gateway: StoreGateway, hands: Hands) -> None:
    batches = [[Event("a/b", {"n": f"{n}.{m}"}) for m in range(n % 3 + 1)] for n in range(300)]
    counters = gateway.store.server.counters
    before = counters.commands
    sent = await asyncio.gather(
        *(gateway.send(events, [encode_event(e) for e in events]) for events in batches)
    )
    assert counters.commands - before <= 4 * len(hands.store.shards) + 1
    stored = {e["i"].decode(): e["d"] for e in await hands.entries()}
    for events, ids in zip(batches, sent, strict=True):
        assert [stored[i] for i in ids] == [encode_event(e) for e in events]


async def test_a_cancelled_send_does_not_harm_the_others(
    gateway: StoreGateway, hands: Hands
) -> None:
    event = Event("a/b")
    sending = [asyncio.create_task(gateway.send([event], [encode_event(event)])) for _ in range(9)]
    await asyncio.sleep(0)
    for task in sending[::3]:
        task.cancel()
    results = await asyncio.gather(*sending, return_exceptions=True)
    ids = [r[0] for r in results if isinstance(r, list)]
    assert len(set(ids)) == 6
    assert set(ids) <= {e["i"].decode() for e in await hands.entries()}


async def test_a_full_stream_refuses(
    gateway: StoreGateway, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STREAM", 2)
    events = [Event("a/b", id="x"), Event("a/b", id="x")]
    ids = await send(gateway, "1", *events)
    with pytest.raises(StreamFullError, match=r"1 events waiting.*send again later"):
        await send(gateway, "2", *events)
    assert await send(gateway, "1", *events) == ids


async def test_what_was_accepted_is_told_when_a_shard_fails(
    gateway: StoreGateway, hands: Hands, store: Store
) -> None:
    if len(store.shards) == 1:
        return
    events = [Event("a/b", id=str(n)) for n in range(20)]
    broken = event_shard("0", 4)
    fine = [e for e in events if event_shard(e.id, 4) != broken]
    full = store.shards[broken].keys.build("send", "seed")
    # A reply that can't be unpacked stands for a shard in trouble.
    await store.server.call(full, "HSET", full, "a", "b")
    with pytest.raises(SendEventsError, match=r"were accepted.*WRONGTYPE") as caught:
        await send(gateway, "seed", *events)
    assert len(caught.value.ids) == len(fine)
    assert len(await hands.entries()) == len(fine)
    await store.server.call(full, "DEL", full)
    assert len(set(await send(gateway, "seed", *events))) == 20
    assert len(await hands.entries()) == 20


async def test_partial_sends_name_the_accepted(
    gateway: StoreGateway, hands: Hands, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if len(store.shards) == 1:
        return
    monkeypatch.setattr(module, "MAX_STREAM", 8)
    crowded = Event("a/b", id="0")
    mates = [Event("a/b", id=str(n)) for n in range(1, 200) if same_shard(str(n), "0")][:8]
    alone = next(Event("a/b", id=str(n)) for n in range(1, 99) if not same_shard(str(n), "0"))
    await send(gateway, "1", *mates)
    with pytest.raises(SendEventsError, match="1 of 2 events were accepted") as caught:
        await send(gateway, "2", crowded, alone)
    assert caught.value.ids == await send(gateway, "3", alone)


def same_shard(one: str, other: str) -> bool:
    return event_shard(one, 4) == event_shard(other, 4)


async def test_an_unknown_function_is_refused_before_any_write(
    gateway: StoreGateway, hands: Hands
) -> None:
    with pytest.raises(FunctionNotFoundError, match="no worker has registered 'nope' of app"):
        await gateway.start("shop", "nope", b"")
    with pytest.raises(FunctionNotFoundError, match="'shop-nope'"):
        await gateway.function("shop-nope")
    assert await gateway.function("shop-ship") == ("shop", "ship")
    assert await hands.entries() == []


async def test_an_ambiguous_name_is_refused(gateway: StoreGateway, hands: Hands) -> None:
    await hands.register("a", "b-c")
    await hands.register("a-b", "c")
    with pytest.raises(FunctionNotFoundError, match="app 'a' fn 'b-c' and app 'a-b' fn 'c'"):
        await gateway.function("a-b-c")


async def test_an_invoked_run_gives_its_output(gateway: StoreGateway, hands: Hands) -> None:
    run = await start(gateway, hands, "s")
    waiting = asyncio.create_task(gateway.result(run, expected=True))
    await asyncio.sleep(0)
    await hands.finish(run, "c", {"ok": 1})
    assert await waiting == (RunStatus.COMPLETED, {"ok": 1})
    assert await gateway.result(run) == (RunStatus.COMPLETED, {"ok": 1})


async def test_waiting_may_begin_before_the_run_exists(gateway: StoreGateway, hands: Hands) -> None:
    encoded = encode_event(Event("inngest/function.invoked"))
    run = await gateway.start("shop", "ship", encoded)
    waiting = asyncio.create_task(gateway.result(run, expected=True))
    while not await watched(hands, run):
        pass
    await hands.create(run, "ship", encoded, ulid_time_chars(1) + "0" * 16)
    await hands.finish(run, "f", {"code": "unknown", "name": "ValueError", "message": "no"})
    status, error = await waiting
    assert status is RunStatus.FAILED
    assert error == ErrorInfo(name="ValueError", message="no")


async def watched(hands: Hands, run: str) -> bool:
    key = hands.store.of_run(run).keys.build("watchers", run)
    return bool(await hands.store.server.call(key, "EXISTS", key))


async def test_many_waiters_share_a_connection(gateway: StoreGateway, hands: Hands) -> None:
    runs = [await start(gateway, hands, f"s{n}") for n in range(12)]
    waiting = [asyncio.create_task(gateway.result(run)) for run in runs for _ in range(2)]
    while not all([await watched(hands, run) for run in runs]):
        pass
    for run in runs:
        await hands.finish(run, "c", run)
    assert [value for _, value in await asyncio.gather(*waiting)] == [r for r in runs for _ in "ab"]
    assert gateway.store.server.blocking_counters.connects == 1


async def test_a_lost_connection_loses_no_end(gateway: StoreGateway, hands: Hands) -> None:
    run = await start(gateway, hands, "s")
    waiting = asyncio.create_task(gateway.result(run))
    while not await watched(hands, run):
        pass
    await hands.store.server.call("", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await hands.finish(run, "c", 1)
    assert await asyncio.wait_for(waiting, 5) == (RunStatus.COMPLETED, 1)


async def test_unknown_runs_are_said_at_once(gateway: StoreGateway) -> None:
    ghost = run_id(1, "e", "shop", "ship", 0)
    for call in (gateway.run, gateway.wait, gateway.result):
        with pytest.raises(RunNotFoundError, match=ghost):
            await call(ghost)
    with pytest.raises(RunNotFoundError, match=ghost):
        await gateway.cancel(ghost, "why")


async def test_a_run_is_shown_whole(gateway: StoreGateway, hands: Hands) -> None:
    run = await start(gateway, hands, "s")
    queued = await gateway.run(run)
    assert (queued.status, queued.fn_id, queued.function_id) == ("queued", "ship", "shop-ship")
    assert queued.events[0].data == {"seed": "s"}
    item = await hands.lease(run)
    assert (await gateway.run(run)).status is RunStatus.RUNNING
    head = pack(["sleep", "nap", 5, {"ms": 60_000}])
    done = b"d" + pack(["run", "charge", 1_000, 2_000, 0, {"paid": True}])
    failed = b"e" + pack(["run", "mail", 3_000, 4_000, 1, {"name": "E", "message": "m"}])
    tries = b"01" + pack([0, "w1", 3_000, 3_500, {"name": "E", "message": "first"}])
    ops = ("d", "A" * 16, done, "", 0, "d", "B" * 16, failed, tries, 0)
    sleep = ("z", "C" * 16, "d", 60_000, head)
    shard = hands.store.of_run(run)
    reply = await shard.commit(run, "", item.token, 0, ("S",), (*ops, *sleep))
    assert reply[0] == b"OK"

    shown = await gateway.run(run)
    assert shown.status is RunStatus.WAITING
    nap, charge, mail = shown.steps
    assert (charge.id, charge.status, charge.output) == ("charge", "completed", {"paid": True})
    assert (mail.status, mail.error) == ("failed", ErrorInfo(name="E", message="m"))
    assert mail.attempts[0].error.message == "first"
    assert (nap.id, nap.op, nap.status, nap.details) == ("nap", "sleep", "waiting", {"ms": 60_000})
    assert nap.due_at is not None
    (entry,) = shown.entries
    assert (entry.worker, entry.outcome) == ("w1", "suspended")
    assert entry.queued_at <= entry.started_at
    assert entry.ended_at is not None
    assert shown.started_at is not None


async def test_a_run_is_cancelled_once(gateway: StoreGateway, hands: Hands) -> None:
    run = await start(gateway, hands, "s")
    assert await gateway.cancel(run, "no stock") is RunStatus.CANCELLED
    assert await gateway.cancel(run, "again") is RunStatus.CANCELLED
    shown = await gateway.run(run)
    assert shown.error == ErrorInfo(
        code="run_cancelled", name="RunCancelledError", message="no stock"
    )
    running = await start(gateway, hands, "s2")
    await hands.lease(running)
    assert await gateway.cancel(running, "") is RunStatus.CANCELLING
    assert (await gateway.run(running)).status is RunStatus.CANCELLING


async def test_runs_are_listed_newest_first_in_pages(gateway: StoreGateway, hands: Hands) -> None:
    runs = await many(hands, 25)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await gateway.runs(query(limit=4, cursor=cursor))
        seen += [run.id for run in page.items]
        cursor = page.cursor
    assert seen == runs
    bills = await gateway.runs(query(fn_id="bill"))
    assert [r.fn_id for r in bills.items] == ["bill"] * 12
    assert bills.cursor is None
    assert (await gateway.runs(query(app_id="other"))).items == ()


async def many(hands: Hands, count: int) -> list[str]:
    """Runs of two functions, five in each ms; newest first."""
    made: list[tuple[int, str]] = []
    for n in range(count):
        fn = ("ship", "bill")[n % 2]
        shard = function_shard("shop", fn, len(hands.store.shards))
        at = 1_700_000_000_000 + n // 5
        run = run_id(at, f"e{n}", "shop", fn, shard)
        blob = run.encode() + encode_event(Event("a/b"))
        new = NewRun(run, hands.numbers["shop", fn], "shop", blob, 0, at)
        await hands.store.shards[shard].fanout(GROUP, [], [], [new], record_ttl_ms=1)
        made.append((at, run))
    return [run for _, run in sorted(made, reverse=True)]


async def test_runs_are_listed_by_status(gateway: StoreGateway, hands: Hands) -> None:
    runs = await many(hands, 25)
    for run in runs[3::7]:
        await gateway.cancel(run, "")
    page = await gateway.runs(query(status=RunStatus.CANCELLED, limit=3))
    assert [r.id for r in page.items] == runs[3::7][:3]
    assert page.cursor is not None
    rest = await gateway.runs(query(status=RunStatus.CANCELLED, limit=3, cursor=page.cursor))
    assert [r.id for r in rest.items] == runs[3::7][3:]
    assert rest.cursor is None


@pytest.mark.parametrize("cursor", ["x", "!!", "aGVsbG8", "é"])
def test_a_bad_cursor_is_named(cursor: str) -> None:
    with pytest.raises(ConfigError, match="cursor="):
        decode_cursor(cursor)


async def test_events_tell_what_became_of_them(
    gateway: StoreGateway, hands: Hands, store: Store
) -> None:
    waiting, lonely, wanted = await send(
        gateway, "s", Event("a/b", {"n": 1}), Event("c/d", {"n": 2}), Event("e/f", {"n": 3})
    )
    pending = await gateway.event(waiting)
    assert pending is not None
    assert pending.pending
    assert pending.event is not None
    assert pending.event.data == {"n": 1}

    shard = store.shards[event_shard("s", len(store.shards))]
    home = function_shard("shop", "ship", len(store.shards))
    run = run_id(ulid_ms(wanted), wanted, "shop", "ship", home)
    await hands.create(run, "ship", encode_event(Event("e/f", {"n": 3})), wanted)
    nobody = {"name": "c/d", "ts": 0, "shard": 0, "plan": [], "event": encode_event(Event("c/d"))}
    plan = [["shop", "ship", "started", run, home], ["shop", "bill", "filtered", "", 0]]
    records = [
        (lonely, pack(nobody)),
        (wanted, pack({"name": "e/f", "ts": 0, "shard": 0, "plan": plan})),
        ("01HF7YAT000000000000000000", b"D" + wanted.encode()),
    ]
    await shard.fanout(GROUP, [], records, [], record_ttl_ms=60_000)

    alone = await gateway.event(lonely)
    assert alone is not None
    assert (alone.outcomes, alone.pending) == ((), False)
    assert alone.event is not None
    record = await gateway.event(wanted)
    assert record is not None
    assert record.run_ids == [run]
    assert [(o.fn_id, o.outcome, o.run_id) for o in record.outcomes] == [
        ("ship", "started", run),
        ("bill", "filtered", None),
    ]
    assert record.event is not None
    assert record.event.data == {"n": 3}
    duplicate = await gateway.event("01HF7YAT000000000000000000")
    assert duplicate is not None
    assert duplicate.duplicate_of == wanted
    assert await gateway.event("01HF7YAT000000000000000001") is None
    assert await gateway.event("nonsense") is None
