"""Waits meet events by value, in full, and on every shard; the outbox reaches other shards."""

from collections.abc import Sequence

import pytest

from stepwell.events import Event, encode_event
from stepwell.ids import event_entropy, step_key, ulid_ms
from stepwell.serde.values import pack, unpack
from stepwell_engine.entries import Batch
from stepwell_engine.planning import Work
from stepwell_engine.recent import Recent
from stepwell_engine.store.transitions import Leased
from tests.integration.coordination import (
    APP,
    SHARDS,
    World,
    config,
    coordinator,
    delivered,
    on_shard,
    settled,
    until,
)

pytestmark = pytest.mark.anyio


async def started(w: World, *data: dict[str, object]) -> list[Leased]:
    """Leased runs of `ship`, in the order of their events' data."""
    ids = await w.send(*(Event("order/created", dict(d)) for d in data))
    runs = [w.run_of(i, "ship") for i in ids]
    found: dict[str, Leased] = {}

    async def all_there() -> bool:
        found.update({item.run_id: item for item in await w.lease()})
        return len(found) == len(runs)

    await until(all_there)
    return [found[run] for run in runs]


async def test_waits_end_by_equality_by_residual_and_without_condition(one: World) -> None:
    await one.functions(ship=config("order/created"))
    async with coordinator(one) as c:
        a, b, rich, any_ = await started(one, {"id": 1}, {"id": 2}, {"id": 1, "min": 50}, {})
        by_id = "event.data.id == async.data.id"
        key = await one.wait_for(a, "paid", "order/paid", expression=by_id)
        await one.wait_for(b, "paid", "order/paid", expression=by_id)
        await one.wait_for(
            rich, "paid", "order/paid", expression=f"{by_id} && async.data.sum >= event.data.min"
        )
        await one.wait_for(any_, "paid", "order/paid")
        # 1.0 equals 1, "1" doesn't; 49 is below the minimum of the third.
        await one.send(Event("order/paid", {"id": "1"}))
        (event,) = await one.send(Event("order/paid", {"id": 1.0, "sum": 49}))
        await settled(c)
        got = [delivered(await one.run(item.run_id), key) for item in (a, b, rich, any_)]
        assert got[0] is not None
        assert got[0][0] == "v"
        assert got[0][1][:26].decode() == event
        assert unpack(got[0][1][26:])[5] == {"id": 1.0, "sum": 49}
        assert got[1] is None
        assert got[2] is None
        assert got[3] is not None
        await one.send(Event("order/paid", {"id": 1, "sum": 50}), Event("order/paid", {"id": 2}))
        await settled(c)
        got = [delivered(await one.run(item.run_id), key) for item in (b, rich)]
        assert None not in got
        assert c.metrics.registry.get_sample_value("stepwell_waits_matched_total") == 4
        woken = await one.lease()
        assert {item.run_id for item in woken} == {i.run_id for i in (a, b, rich, any_)}


async def test_more_waits_than_a_page_all_end(one: World) -> None:
    await one.functions(ship=config("order/created"))
    async with coordinator(one) as c:
        await one.send(*(Event("order/created", {"n": n}) for n in range(1200)))
        await settled(c)
        items: list[Leased] = []
        for _ in range(6):
            items += await one.lease(want=200)
        assert len(items) == 1200
        for item in items:
            key = await one.wait_for(item, "go", "all/go")
        await one.send(Event("all/go"))
        await settled(c)
        assert c.metrics.registry.get_sample_value("stepwell_waits_matched_total") == 1200
        assert delivered(await one.run(items[-1].run_id), key) is not None


async def test_an_event_accepted_before_the_wait_does_not_end_it(one: World) -> None:
    await one.functions(ship=config("order/created"))
    async with coordinator(one) as c:
        (item,) = await started(one, {})
        await settled(c)
    # Nobody reads now: the event is accepted, then the wait is registered.
    await one.send(Event("order/paid"))
    key = await one.wait_for(item, "paid", "order/paid")
    async with coordinator(one) as c:
        await settled(c)
        assert delivered(await one.run(item.run_id), key) is None
        await one.send(Event("order/paid"))
        await settled(c)
        assert delivered(await one.run(item.run_id), key) is not None


async def test_a_timed_out_wait_gets_nothing(one: World) -> None:
    await one.functions(ship=config("order/created"))
    async with coordinator(one) as c:
        (item,) = await started(one, {})
        key = await one.wait_for(item, "paid", "order/paid", timeout_ms=30)

        async def over() -> object:
            return delivered(await one.run(item.run_id), key)

        assert await until(over) == ("n", b"")
        assert c.metrics.registry.get_sample_value("stepwell_timer_lateness_seconds_count") == 1


async def test_an_event_reaches_functions_and_waits_on_every_shard(four: World) -> None:
    fns = [on_shard(i) for i in range(SHARDS)]
    await four.functions(**{fn: config("order/created") for fn in fns})
    async with coordinator(four) as first, coordinator(four) as second:
        events = [
            (await four.send(Event("order/created", {"s": s}), shard=s))[0] for s in range(SHARDS)
        ]
        await settled(first, second)
        items: list[Leased] = []
        for shard in range(SHARDS):
            leased = await four.lease(shard=shard)
            assert {item.run_id for item in leased} == {four.run_of(e, fns[shard]) for e in events}
            items += leased
        for shard, event in enumerate(events):
            record = await four.record(event, shard)
            assert record is not None
            assert {row[1]: row[4] for row in record["plan"]} == {fn: i for i, fn in enumerate(fns)}
        for item in items:
            key = await four.wait_for(item, "go", "all/go")
        await four.send(Event("all/go"), shard=2)
        await settled(first, second)
        for item in items:
            assert delivered(await four.run(item.run_id), key) is not None


async def test_a_redelivered_event_follows_the_plan_that_was_fixed(four: World) -> None:
    near, far, late = on_shard(0), on_shard(1), on_shard(2)
    await four.functions(**{near: config("order/created"), far: config("order/created")})
    (event,) = await four.send(Event("order/created"))
    # A first coordinator got as far as the plan, then died; then another function appeared.
    plan = [(APP, fn, "started", four.run_of(event, fn), i) for i, fn in enumerate((near, far))]
    fixed = pack(
        {"name": "order/created", "ts": 1, "shard": 0, "plan": [list(row) for row in plan]}
    )
    await four.store.shards[0].plan(event, fixed, ttl_ms=1_000_000)
    await four.functions(**{late: config("order/created")})
    async with coordinator(four) as c:
        await settled(c)
    assert len(await four.lease(shard=0)) == len(await four.lease(shard=1)) == 1
    assert await four.lease(shard=2) == []


async def test_what_was_refused_stays_so_when_its_event_is_delivered_late(four: World) -> None:
    far = on_shard(1)
    rate = {"limit": 1, "period": 60_000, "key": None}
    await four.functions(**{far: config("order/created", rate_limit=rate)})
    await four.send(Event("order/created"), Event("order/created"))
    stream, call = four.store.keys(0).events, four.store.server.call
    entries = await call(stream, "XRANGE", stream, "-", "+")
    async with coordinator(four) as c:
        await settled(c)
        # As another coordinator has them that read them before the first acknowledged them.
        for _, flat in entries:
            await call(stream, "XADD", stream, "*", *flat)
        await settled(c)
    assert len(await four.lease(shard=1)) == 1


async def test_a_child_elsewhere_answers_and_is_cancelled_through_the_outbox(four: World) -> None:
    parent_fn, child_fn = on_shard(0), on_shard(3)
    await four.functions(**{parent_fn: config("order/created"), child_fn: config()})
    async with coordinator(four) as c:
        await four.send(Event("order/created"))
        await settled(c)
        (parent,) = await four.lease()
        keys = [step_key(name, 0) for name in ("one", "two")]
        for entropy, key in zip(("C" * 16, "D" * 16), keys, strict=True):
            details = {"app": APP, "fn": child_fn, "entropy": entropy, "timeout_ms": 60_000}
            head = pack(["invoke", "x", 0, details])
            target = pack([APP, child_fn, f"{parent.run_id}:{key}"])
            encoded = encode_event(Event("inngest/function.invoked"))
            await four.store.shards[0].commit(
                parent.run_id, "", parent.token, 0, ("N",),
                ("i", key, 60_000, head, encoded, entropy, target, "1"),
            )  # fmt: skip
        await settled(c)
        children = {
            (await four.run(item.run_id))["pa"][27:].decode(): item
            for item in await four.lease(shard=3)
        }
        one, two = (children[key] for key in keys)
        await four.finish(one, "c", 42)
        await settled(c)
        answer = delivered(await four.run(parent.run_id), keys[0])
        assert answer is not None
        assert unpack(answer[1]) == 42
        # The parent ends with a child out: that one is asked to stop.
        assert await four.finish(parent) == "OK"
        await settled(c)
        assert (await four.run(two.run_id))["st"] == b"x"


async def test_an_owed_event_is_accepted_by_its_shard_once(four: World) -> None:
    parent_fn, far = on_shard(0), on_shard(2)
    await four.functions(**{parent_fn: config("order/created"), far: config("order/sent")})
    async with coordinator(four) as c:
        await four.send(Event("order/created"))
        await settled(c)
        (item,) = await four.lease()
        encoded = encode_event(Event("order/sent", {"n": 1}, id="mine"))
        entropy = event_entropy("some", 0)
        record = b"d" + pack(["send_event", "s", 0, 0, 0, None])
        await four.store.shards[0].commit(
            item.run_id, "", item.token, 0, ("F", "c", pack(None), b""),
            ("d", step_key("s", 0), record, "", 1, "order/sent", encoded, entropy, "hash-of-mine", 2),
        )  # fmt: skip
        await settled(c)
        (child,) = await four.lease(shard=2)
        event = child.fields[b"e"][:26].decode()
        assert event[10:] == entropy
        assert ulid_ms(event) > 0
        # The same id again, straight to the shard: a duplicate of the owed one.
        (again,) = await four.send(Event("order/sent", id="mine"), shard=2, hashed="hash-of-mine")
        assert again == event


async def test_a_wait_that_looks_back_gets_what_came_before_it(one: World) -> None:
    await one.functions(ship=config("order/created", lookback=["order/paid", "order/created"]))
    async with coordinator(one) as c:
        a, b, same = await started(one, {"id": 1}, {"id": 2}, {"id": 3})
        (paid,) = await one.send(Event("order/paid", {"id": 1}))
        await settled(c)
        by_id = "event.data.id == async.data.id"
        for item in (a, b):
            since = str(int(float(item.fields[b"t"])) * 1000)
            key = await one.wait_for(item, "paid", "order/paid", expression=by_id, since=since)
        since = str(int(float(same.fields[b"t"])) * 1000)
        await one.wait_for(same, "paid", "order/created", expression=by_id, since=since)
        await settled(c)
        got = delivered(await one.run(a.run_id), key)
        assert got is not None
        assert got[1][:26].decode() == paid
        assert delivered(await one.run(b.run_id), key) is None
        # The event that started a run is not what it waits for.
        assert delivered(await one.run(same.run_id), key) is None
        await one.send(Event("order/paid", {"id": 2}))
        await settled(c)
        assert delivered(await one.run(b.run_id), key) is not None


async def test_a_wait_that_looked_back_a_moment_too_early_is_found(
    one: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One coordinator has asked who waits, but not noted its event yet, when another answers the look-back."""
    await one.functions(ship=config("order/created", lookback=["order/paid"]))
    keys, call = one.store.keys(0), one.store.server.call
    waiting: list[str] = []
    note = Recent.note

    async def late(self: Recent, works: Sequence[Work]) -> set[str]:
        if any(work.entry.name == "order/paid" for work in works):
            since = str(int(float(item.fields[b"t"])) * 1000)
            waiting.append(await one.wait_for(item, "paid", "order/paid", since=since))
            ((sid, fields),) = [
                row
                for row in await call(keys.root, "XRANGE", keys.events, "-", "+")
                if row[1][1] == b"l"
            ]
            (look,) = Batch(0, [(sid, fields)]).entries
            await self.answer(0, [look])
            await call(keys.root, "XDEL", keys.events, sid)
        return await note(self, works)

    async with coordinator(one) as c:
        (item,) = await started(one, {"id": 1})
        await settled(c)
        monkeypatch.setattr(Recent, "note", late)
        (paid,) = await one.send(Event("order/paid"))
        await until(
            lambda: one.store.server.call(
                keys.root, "HEXISTS", keys.run(item.run_id), f"s:{step_key('paid', 0)}"
            )
        )
        await settled(c)
    (key,) = waiting
    got = delivered(await one.run(item.run_id), key)
    assert got is not None
    assert got[1][:26].decode() == paid
