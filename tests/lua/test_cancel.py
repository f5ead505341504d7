"""cancel.lua and finish: from every root state, once, with all that waits gone."""

from collections.abc import AsyncIterator

import pytest

from stepwell.serde import unpack
from stepwell_engine.store.transitions import Arg
from tests.support.audit import assert_sound
from tests.support.shard import (
    CANCELLED,
    STOP,
    WATCHED,
    Shard,
    done,
    failed,
    invoke,
    planned,
    sleep,
    step,
    wait,
    watching,
)

pytestmark = pytest.mark.anyio


async def end(shard: Shard, run: str) -> None:
    assert await shard.cancel(run) == "k"
    assert await shard.cancel(run) == "k", "idempotent"
    assert await shard.status(run) == "k"
    assert await shard.field(run, "er") == CANCELLED
    assert await shard.kinds() == ["f inngest/function.cancelled", "f inngest/function.finished"]
    shard.wait(10_000_000)
    await shard.due()
    assert await shard.lease() == []
    assert await shard.do("EXISTS", "ready_fns", params=("app",)) == 0


async def test_queued(shard: Shard) -> None:
    await end(shard, await shard.create())


async def test_scheduled(shard: Shard) -> None:
    await end(shard, await shard.create(start_ms=shard.clock.now_ms() + 60_000))


@pytest.mark.parametrize("ops", [sleep("a", 9), wait("a", "app/x"), failed("a"), planned("a")])
async def test_parked(shard: Shard, ops: tuple[Arg, ...]) -> None:
    item = await shard.leased()
    await shard.commit(item, "S", ops=ops)
    await end(shard, item.run_id)


async def test_in_backoff(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "R", 1_000, b"01")
    await end(shard, item.run_id)


async def test_queued_again(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "Y", "drain")
    await end(shard, item.run_id)


async def test_a_suspect(shard: Shard) -> None:
    item = await shard.leased()
    shard.wait(20_001)
    await shard.reclaim()
    await end(shard, item.run_id)


async def test_leased_and_the_worker_confirms(shard: Shard) -> None:
    item = await shard.leased()
    assert await shard.cancel(item.run_id) == "x"
    assert await shard.cancel(item.run_id) == "x"
    assert await shard.do("LRANGE", "control", 0, -1, params=("w1",)) == [
        b"c" + item.run_id.encode()
    ]
    await shard.commit(item, "F", "k", CANCELLED, b"")
    await end(shard, item.run_id)


async def test_leased_and_the_grace_ends(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "N", ops=sleep("a", 99_999))
    await shard.cancel(item.run_id)
    shard.wait(10_001)
    await shard.due()
    assert await shard.alive("w1", item) == [item.run_id]
    assert await shard.commit(item, "F", "k", b"late", b"") == "FENCED"
    await end(shard, item.run_id)


@pytest.mark.parametrize("root", [("S",), ("R", 50_000, b""), ("Y", "drain")])
async def test_a_leased_planned_step(shard: Shard, root: tuple[Arg, ...]) -> None:
    item = await shard.leased()
    await shard.commit(item, "N", ops=planned("a"))
    (planned_item,) = await shard.lease(worker="w2")
    await shard.commit(item, *root)
    assert await shard.cancel(item.run_id) == "x"
    assert await shard.do("LLEN", "control", params=("w2",)) == 1
    assert await shard.commit(planned_item, "D", ops=done("a")) == "CANCEL"
    assert await shard.commit(planned_item, "F", "k", CANCELLED, b"") == "OK"
    await end(shard, item.run_id)


async def test_an_ended_run_stays_as_it_is(shard: Shard) -> None:
    for to in "cf":
        item = await shard.leased()
        await shard.commit(item, "F", to, b"p", b"")
        assert await shard.cancel(item.run_id) == to


async def test_an_unknown_run(shard: Shard) -> None:
    run = shard.new_id()
    assert await shard.cancel(run) == ""
    assert await shard.cancel(run, tombstone="1") == "k"
    await shard.create(run=run)
    assert await shard.status(run) == "k", "a cancelled child can't start any more"
    assert await shard.lease() == []


async def test_a_delivery_to_a_cancelling_run_does_no_harm(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "N", ops=sleep("a", 10))
    await shard.cancel(item.run_id)
    shard.wait(11)
    await shard.due()
    assert await shard.field(item.run_id, f"s:{step('a')}") is not None
    assert await shard.commit(item, "S", dv=1) == "CANCEL"


async def test_watchers_hear_of_the_end_once(shard: Shard) -> None:
    run = await shard.create()
    for watcher in ("a", "b", "a"):
        assert await shard.t.watch(run, watcher, ttl_ms=60_000) == "q"
    await shard.cancel(run)
    for watcher in ("a", "b"):
        assert await shard.do("LRANGE", "reply", 0, -1, params=(watcher,)) == [run.encode()]
    assert await shard.do("EXISTS", "watchers", params=(run,)) == 0
    assert await shard.t.watch(run, "c", ttl_ms=60_000) == "k"


async def test_a_run_may_be_watched_before_it_exists(shard: Shard) -> None:
    run = shard.new_id()
    assert await shard.t.watch(run, "a", ttl_ms=60_000) == ""
    await shard.create(run=run)
    (item,) = await shard.lease()
    await shard.commit(item, "F", "c", b"", b"")
    assert await shard.do("LLEN", "reply", params=("a",)) == 1


async def test_sweep_removes_old_ends_only(shard: Shard) -> None:
    old, young = await shard.create(), await shard.create()
    live = await shard.create()
    await shard.cancel(old)
    shard.wait(1_000)
    await shard.cancel(young)
    assert await shard.t.sweep(shard.clock.now_ms() - 500, limit=10) == 1
    assert [await shard.status(r) for r in (old, young, live)] == ["", "k", "q"]
    assert await shard.do("ZCARD", "fn_runs", params=("1",)) == 2


@pytest.mark.parametrize("lease", [False, True])
async def test_registrations_and_timeouts_go_with_the_run(shard: Shard, lease: bool) -> None:
    run = await shard.create(flow=WATCHED)
    assert await shard.do("ZCARD", "waits", params=("app/stop",)) == 1
    items = await shard.lease() if lease else []
    assert await shard.cancel(run) == ("x" if lease else "k")
    for item in items:
        assert await shard.commit(item, "F", "k", CANCELLED, b"") == "OK"
    assert await shard.do("EXISTS", "waits", params=("app/stop",)) == 0
    assert await shard.do("EXISTS", "wait_paths", params=("app/stop",)) == 0
    assert await shard.do("ZCARD", "due") == 0


@pytest.mark.parametrize("hot", [False, True])
async def test_a_returned_run_undoes_what_it_has(shard: Shard, hot: bool) -> None:
    run = await shard.create(flow=WATCHED)
    (item,) = await shard.lease()
    if hot:
        assert await shard.t.returned([run, item.token, b"o"]) == [1]
    else:
        assert await shard.commit(item, "F", "c", b"o", b"") == "OK"
    assert await shard.do("ZCARD", "due") == 0
    assert await shard.do("EXISTS", "waits", params=("app/stop",)) == 0


async def test_the_start_timeout(shard: Shard) -> None:
    late, begun = await shard.create(flow=WATCHED), await shard.create(flow=WATCHED)
    assert {item.run_id for item in await shard.lease(2)} == {late, begun}
    queued = await shard.create(flow=WATCHED)
    shard.wait(60_001)
    await shard.due()
    assert [await shard.status(run) for run in (late, begun, queued)] == ["r", "r", "k"]
    error = unpack(await shard.field(queued, "er") or b"")
    assert error["message"] == "timeouts: start 1m: the run had not begun by then"


async def test_the_finish_timeout_of_a_leased_and_of_a_parked_run(shard: Shard) -> None:
    first, second = [await shard.create(flow=WATCHED) for _ in range(2)]
    items = {item.run_id: item for item in await shard.lease(2)}
    await shard.commit(items[second], "S", ops=wait("w", "app/x", ms=10**9))
    shard.wait(90_001)
    await shard.due()
    assert [await shard.status(run) for run in (first, second)] == ["x", "k"]
    assert b"finish 1m30s" in (await shard.field(first, "er") or b"")
    shard.wait(10_001)
    await shard.due()
    assert await shard.status(first) == "k"
    assert b"finish 1m30s" in (await shard.field(first, "er") or b""), "the first reason stays"


async def test_a_timeout_of_a_run_that_is_being_cancelled_changes_nothing(shard: Shard) -> None:
    run = await shard.create(flow=WATCHED)
    await shard.lease()
    shard.wait(85_000)
    assert await shard.cancel(run) == "x"
    shard.wait(5_001)
    await shard.due()
    assert await shard.status(run) == "x"
    assert await shard.field(run, "er") == CANCELLED


async def test_an_older_event_is_asked_for_only_if_one_may_count(shard: Shard) -> None:
    now = shard.clock.now_ms()
    bounds = {"most": 9, "age_ms": 10**9, "ttl_ms": 10**9}
    await shard.t.remember([("app/stop", now * 1000 - 10**6, b"old")], **bounds)
    await shard.create(flow=WATCHED, score=now)
    assert await shard.kinds() == []
    await shard.t.remember([("app/stop", now * 1000 + 1, b"new")], **bounds)
    run = await shard.create(flow=WATCHED, score=now)
    [entry] = await looks(shard)
    assert entry[1]["d"].decode() == f"{run}:!0"
    assert await shard.field(run, "hd") == entry[0]
    await shard.do("DEL", "recent", params=("app/stop",))


TWICE = watching(STOP, ("app/halt", "~\0", "~"))


async def looks(shard: Shard) -> list[tuple[bytes, dict[str, bytes]]]:
    return [(sid, fields) for sid, fields in await shard.entries() if fields["k"] == b"l"]


@pytest.fixture
async def held(shard: Shard) -> AsyncIterator[str]:
    """A run that two cancels may end that were handled before it was created."""
    now = shard.clock.now_ms()
    events = [(name, now * 1000 + 1, b"e") for name in ("app/stop", "app/halt")]
    await shard.t.remember(events, most=9, age_ms=10**9, ttl_ms=10**9)
    yield await shard.create(flow=TWICE, score=now)
    await shard.do("DEL", "recent", params=("app/stop",))
    await shard.do("DEL", "recent", params=("app/halt",))


async def test_a_held_run_is_let_go_by_the_last_answer(shard: Shard, held: str) -> None:
    (first, _), (second, _) = await looks(shard)
    assert await shard.lease() == []
    await assert_sound(shard.server)
    for entry, let_go in (first, False), (first, False), (b"9-9", False), (second, True):
        assert await shard.t.answered(held, entry) == let_go
        assert ([item.run_id for item in await shard.lease()] == [held]) == let_go
        await assert_sound(shard.server)
    assert not await shard.t.answered(held, second), "of one that was let go nothing changes"
    assert await shard.field(held, "hd") is None
    assert await shard.do("ZSCORE", "due", held) is None


async def test_a_held_run_stays_as_long_as_an_answer_may_come(shard: Shard, held: str) -> None:
    (first, _), (second, _) = await looks(shard)
    for gone, left in ((), first + b" " + second), ((first,), second):
        await shard.do("XDEL", "events", b"0-1", *gone)
        shard.wait(5_001)
        await shard.due()
        assert await shard.lease() == []
        assert await shard.field(held, "hd") == left
        await assert_sound(shard.server)
    await shard.do("XDEL", "events", second)  # given up: nobody will answer
    shard.wait(5_001)
    await shard.due()
    assert [item.run_id for item in await shard.lease()] == [held]


async def test_a_held_run_is_cancelled_at_once(shard: Shard, held: str) -> None:
    assert await shard.cancel(held) == "k"
    for entry, _ in await looks(shard):
        assert not await shard.t.answered(held, entry)
    shard.wait(5_001)
    await shard.due()
    assert await shard.lease() == []
    assert await shard.field(held, "hd") is None


async def test_a_held_run_that_is_to_start_later(shard: Shard) -> None:
    now = shard.clock.now_ms()
    await shard.t.remember([("app/stop", now * 1000 + 1, b"e")], most=9, age_ms=10**9, ttl_ms=10**9)
    early, late = [
        await shard.create(flow=WATCHED, score=now, start_ms=now + 10_000) for _ in range(2)
    ]
    (first, _), (second, _) = await looks(shard)
    assert await shard.t.answered(early, first)
    assert await shard.lease() == [], "its event names a time"
    shard.wait(10_001)
    await shard.due()
    assert [item.run_id for item in await shard.lease()] == [early]
    assert await shard.t.answered(late, second)
    assert [item.run_id for item in await shard.lease()] == [late]
    await shard.do("DEL", "recent", params=("app/stop",))


async def test_an_event_tells_how_many_runs_it_cancelled(shard: Shard) -> None:
    runs = [await shard.create() for _ in range(105)]
    for run in [*runs, *runs[:9]]:
        await shard.t.cancel(run, error=CANCELLED, grace_ms=1, event="E" * 26)
    flat = await shard.do("HGETALL", "outcome", params=("E" * 26,))
    told = dict(zip(flat[::2], flat[1::2], strict=True))
    assert told.pop(b"!") == b"105"
    assert told == {b"!" + run.encode(): b"1" for run in runs[:100]}


async def test_registrations_are_found_by_value_beside_waits(shard: Shard) -> None:
    run = await shard.create(flow=WATCHED)
    item = await shard.leased(number="2")
    await shard.commit(item, "S", ops=wait("w", "app/stop", path="p"))
    pages = [("app/stop", b"~p\0key", b""), ("app/stop", b"~p\0kez", b"")]
    found, nothing = await shard.t.candidates(pages)
    assert [member.decode() for member, _, _ in found.rows] == [f"~p\0key{run}:!0"]
    assert nothing == ([], False)
    assert sorted((await shard.t.awaited(["app/stop"]))[0]) == ["p", "~p"]


async def test_invoked_runs_are_cancelled_too_when_asked(shard: Shard) -> None:
    item = await shard.leased()
    ops = (*invoke("a"), *invoke("b", cancel="1"), *wait("w", "app/x"))
    await shard.commit(item, "N", ops=ops)
    assert await shard.t.cancel(item.run_id, error=CANCELLED, grace_ms=10_000, children=True) == "x"
    told = [f for _, f in await shard.entries("outbox")]
    assert sorted((f["k"], f["b"].decode()) for f in told) == sorted(
        (b"C", step(name)) for name in "ab"
    )
    await shard.commit(item, "F", "k", CANCELLED, b"")
    await shard.t.cancel(item.run_id, error=CANCELLED, grace_ms=10_000, children=True)
    # It has ended, and `b` was asked to stop with it; `a` may go on still.
    told = [f for _, f in await shard.entries("outbox") if f["k"] == b"C"]
    assert sorted(f["b"].decode() for f in told) == sorted(step(name) for name in "aab")
    assert len({(f["b"], f["c"], f["d"]) for f in told}) == 2
