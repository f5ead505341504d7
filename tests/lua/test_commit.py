"""commit.lua: ops, clauses, fencing, and that a commit sent again changes nothing."""

import msgpack
import pytest

from stepwell.serde import pack
from stepwell_engine.store.transitions import Arg, Leased
from tests.support.shard import (
    CANCELLED,
    Shard,
    done,
    failed,
    invoke,
    planned,
    signal,
    sleep,
    step,
    wait,
)

pytestmark = pytest.mark.anyio

OPS: dict[str, tuple[Arg, ...]] = {
    "done": done("a", b"r", b"01x"),
    "done with events": (
        *("d", step("a"), b"r", b"", 2),
        *("app/one", b"x", "1" * 16, "", ""),
        *("app/two", b"y", "2" * 16, "h", ""),
    ),
    "done, owing an event": ("d", step("a"), b"r", b"", 1, "app/x", b"x", "1" * 16, "h", "2"),
    "failed": failed("a"),
    "sleep": sleep("a", 1_000),
    "sleep until": sleep("a", 2_000_000_000_000, "u"),
    "wait": wait("a", "app/paid", path="data.id"),
    "signal": signal("a"),
    "invoke": invoke("a"),
    "planned": planned("a"),
    "mode": ("m", "w"),
    "dropped": (*planned("a"), "x", step("a"), *wait("b", "app/paid"), "x", step("b")),
}


async def state(shard: Shard, run: str) -> object:
    """All that a commit can change."""
    names = [
        ("due",),
        ("waits", "app/paid"),
        ("leases",),
        ("resumes", "1", ""),
        ("suspects", "app"),
    ]
    fields = await shard.fields(run)
    fields.pop("sz", None)
    return (
        fields,
        [await shard.do("ZRANGE", n, 0, -1, "WITHSCORES", params=tuple(p)) for n, *p in names],
        await shard.do("HGETALL", "wait_paths", params=("app/paid",)),
        await shard.entries(),
        await shard.entries("outbox"),
    )


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
async def test_ops_sent_again_change_nothing(shard: Shard, op: tuple[Arg, ...]) -> None:
    item = await shard.leased()
    assert await shard.commit(item, "N", ops=op) == "OK"
    before = await state(shard, item.run_id)
    shard.wait(7)
    assert await shard.commit(item, "N", ops=op) == "OK"
    assert await state(shard, item.run_id) == before


CLAUSES: dict[str, tuple[Arg, ...]] = {
    "complete": ("F", "c", b"out", b""),
    "fail": ("F", "f", b"err", b"05"),
    "cancel": ("F", "k", b"err", b""),
    "suspend": ("S",),
    "retry": ("R", 1_000, b"01"),
    "yield": ("Y", "drain"),
}


@pytest.mark.parametrize("clause", CLAUSES.values(), ids=CLAUSES)
async def test_clauses_sent_again_change_nothing(shard: Shard, clause: tuple[Arg, ...]) -> None:
    item = await shard.leased()
    assert await shard.commit(item, *clause, ops=sleep("a", 1_000)) == "OK"
    before = await state(shard, item.run_id)
    shard.wait(7)
    assert await shard.commit(item, *clause, ops=sleep("a", 1_000)) == "OK"
    assert await state(shard, item.run_id) == before


@pytest.mark.parametrize("clause", [("N",), *CLAUSES.values()])
async def test_a_lost_lease_is_fenced(shard: Shard, clause: tuple[Arg, ...]) -> None:
    item = await shard.leased()
    shard.wait(20_001)
    assert await shard.reclaim() == ["suspect"]
    before = await state(shard, item.run_id)
    assert await shard.commit(item, *clause, ops=sleep("a", 1_000)) == "FENCED"
    assert await state(shard, item.run_id) == before
    (again,) = await shard.lease(worker="w2", suspects=1)
    assert again.suspect
    assert await shard.commit(item, *clause) == "FENCED"
    assert await shard.commit(again, "F", "c", b"", b"") == "OK"


async def test_an_unknown_run_is_gone(shard: Shard) -> None:
    assert await shard.commit(Leased(shard.new_id(), "", "t", False, {}), "S") == "GONE"


async def test_a_cancelling_run_takes_nothing_but_its_end(shard: Shard) -> None:
    item = await shard.leased()
    assert await shard.cancel(item.run_id) == "x"
    assert await shard.commit(item, "N", ops=sleep("a", 1_000)) == "CANCEL"
    assert await shard.commit(item, "F", "c", b"out", b"") == "CANCEL"
    assert await shard.field(item.run_id, f"p:{step('a')}") is None
    assert await shard.commit(item, "F", "k", CANCELLED, b"") == "OK"
    assert await shard.commit(item, "F", "k", CANCELLED, b"") == "OK"
    assert await shard.status(item.run_id) == "k"
    assert await shard.do("ZCARD", "due") == 0


async def test_suspend_is_refused_when_something_arrived(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "N", ops=sleep("a", 10))
    shard.wait(11)
    assert (await shard.due()).handled == 1
    assert await shard.do("LRANGE", "control", 0, -1, params=("w1",)) == [
        b"r" + item.run_id.encode()
    ]
    assert await shard.commit(item, "S", ops=sleep("b", 1_000)) == "AGAIN"
    assert await shard.commit(item, "S", dv=1) == "OK"
    assert await shard.field(item.run_id, "rs") == b"p"


async def test_suspend_is_refused_with_nothing_pending(shard: Shard) -> None:
    item = await shard.leased()
    assert await shard.commit(item, "S", ops=done("a")) == "STUCK"
    assert await shard.field(item.run_id, f"s:{step('a')}") == b"done"
    assert await shard.commit(item, "F", "f", b"err", b"") == "OK"


async def test_a_big_commit_fits(shard: Shard) -> None:
    item = await shard.leased()
    ops = tuple(arg for n in range(2_000) for arg in done(f"s{n}", b"r", b"01"))
    assert await shard.commit(item, "N", ops=ops) == "OK"
    assert await shard.commit(item, "F", "c", b"out", b"", ops=ops) == "OK"
    assert len([f for f in await shard.fields(item.run_id) if f.startswith("s:")]) == 2_000


async def test_a_dropped_step_leaves_nothing(shard: Shard) -> None:
    root = await shard.leased()
    await shard.commit(root, "N", ops=(*planned("a"), *planned("b"), *invoke("c", cancel="1")))
    (leased,) = await shard.lease(1)
    drops = ("x", step("a"), "x", step("b"), "x", step("c"), "x", step("nothing"))
    assert await shard.commit(root, "N", ops=(*done("won"), *drops)) == "OK"
    assert await shard.field(root.run_id, "np") == b"0"
    assert await shard.commit(leased, "D", ops=done("a")) == "FENCED"
    assert [f["k"] for _, f in await shard.entries("outbox")] == [b"c"], "its child is cancelled"
    assert await shard.lease() == []


async def test_a_retried_step_is_done_at_last(shard: Shard) -> None:
    item = await shard.leased()
    assert await shard.commit(item, "S", ops=failed("a", 1_000)) == "OK"
    shard.wait(1_001)
    await shard.due()
    (again,) = await shard.lease()
    assert again.fields[b"dv"] == b"1"
    assert f"p:{step('a')}".encode() not in again.fields
    assert await shard.commit(again, "F", "c", b"", b"", ops=done("a"), dv=1) == "OK"


async def test_done_takes_the_pending_with_its_timer_and_wait(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "N", ops=(*wait("a", "app/paid"), *sleep("b", 1_000), *planned("c")))
    await shard.commit(item, "N", ops=(*done("a"), *done("b"), *done("c")))
    assert await shard.field(item.run_id, "np") == b"0"
    assert await shard.do("ZCARD", "due") == 0
    assert await shard.t.awaited(["app/paid"]) == [[]]


async def test_the_root_retry_keeps_its_attempts(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "R", 1_000, b"01x")
    assert await shard.lease() == []
    shard.wait(1_001)
    await shard.due()
    (again,) = await shard.lease()
    await shard.commit(again, "R", 0, b"")
    assert await shard.field(item.run_id, "t:") == b"01x"


@pytest.mark.parametrize(("mode", "woken"), [("w", [False, True]), ("r", [True, True])])
async def test_planned_steps_wake_the_root(shard: Shard, mode: str, woken: list[bool]) -> None:
    root = await shard.leased()
    ops = (*planned("a"), *planned("b"), "m", mode)
    assert await shard.commit(root, "S", ops=ops) == "OK"
    items = await shard.lease()
    assert {i.step for i in items} == {step("a"), step("b")}
    seen = []
    for n, item in enumerate(items):
        name = "a" if item.step == step("a") else "b"
        assert await shard.commit(item, "D", ops=done(name)) == "OK"
        assert await shard.commit(item, "D", ops=done(name)) == "OK"
        seen.append(bool([i for i in await shard.lease() if i.step == ""]))
        if n == 0 and seen[0]:
            root = Leased(
                root.run_id, "", (await shard.field(root.run_id, "l") or b"").decode(), False, {}
            )
            assert await shard.commit(root, "S", dv=1) == "OK"
    assert seen == woken


async def test_a_planned_step_is_retried_by_itself(shard: Shard) -> None:
    root = await shard.leased()
    await shard.commit(root, "S", ops=planned("a"))
    (item,) = await shard.lease()
    assert await shard.commit(item, "R", 1_000, b"01") == "OK"
    assert await shard.lease() == []
    shard.wait(1_001)
    await shard.due()
    (again,) = await shard.lease()
    assert again.step == step("a")
    assert again.fields[f"t:{step('a')}".encode()] == b"01"


async def test_a_planned_step_may_end_the_run(shard: Shard) -> None:
    root = await shard.leased()
    await shard.commit(root, "N", ops=(*planned("a"), *planned("b"), *sleep("c", 1_000)))
    one, two = await shard.lease(worker="w2")
    assert await shard.commit(one, "F", "f", b"err", b"") == "OK"
    assert await shard.commit(one, "F", "f", b"err", b"") == "OK"
    assert await shard.alive("w2", two) == [f"{two.run_id}:{two.step}"]
    assert await shard.commit(two, "D", ops=done("b")) == "FENCED"
    assert await shard.commit(root, "S") == "FENCED"
    for worker in ("w1", "w2"):
        told = await shard.do("LRANGE", "control", 0, -1, params=(worker,))
        assert told == [b"c" + root.run_id.encode()]


async def test_an_end_drops_all_that_waits(shard: Shard) -> None:
    root = await shard.leased()
    ops = (
        *wait("a", "app/paid"),
        *sleep("b", 9),
        *planned("c"),
        *signal("d"),
        *invoke("e", cancel="1"),
        *invoke("f"),
    )
    await shard.commit(root, "N", ops=ops)
    assert await shard.commit(root, "F", "c", b"out", b"") == "OK"
    assert await shard.do("ZCARD", "due") == 0
    assert await shard.lease() == []
    fields = await shard.fields(root.run_id)
    assert (fields["o"], fields.get("np", b"0"), fields.get("rs", b"")) == (b"out", b"0", b"")
    ((_, owed),) = await shard.entries("outbox")
    assert (owed["k"], owed["a"].decode(), owed["b"].decode()) == (b"c", root.run_id, step("e"))


async def test_ends_are_told_in_the_stream(shard: Shard) -> None:
    for to, names in {
        "c": ["finished"], "f": ["failed", "finished"], "k": ["cancelled", "finished"]
    }.items():  # fmt: skip
        await shard.do("DEL", "events")
        item = await shard.leased()
        await shard.commit(item, "F", to, b"p", b"")
        assert await shard.kinds() == [f"f inngest/function.{name}" for name in names]
        await shard.do("DEL", "events")
        item = await shard.leased(no_emit=True)
        await shard.commit(item, "F", to, b"p", b"")
        assert await shard.kinds() == []


async def test_duplicate_events_of_steps_are_recorded_as_such(shard: Shard) -> None:
    item = await shard.leased()
    for n, char in enumerate("12"):
        ops = ("d", step(f"s{n}"), b"r", b"", 1, "app/x", b"x", char * 16, "hash", "0")
        await shard.commit(item, "N", ops=ops)
    ((_, sent),) = await shard.entries()
    records = await shard.server.call("x", "KEYS", shard.key("record", "*"))
    assert [key[-16:] for key in records] == [b"2" * 16]
    assert await shard.server.call("x", "GET", records[0]) == b"D" + sent["i"]
    shard.wait(86_400_001)
    ops = ("d", step("s3"), b"r", b"", 1, "app/x", b"x", "3" * 16, "hash", "")
    await shard.commit(item, "N", ops=ops)
    assert len([k for k in await shard.kinds() if k == "u app/x"]) == 2


async def test_pending_records_say_what_they_wait_for(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "N", ops=wait("a", "app/paid", path="data.id", reg="1700000000000001"))
    raw = await shard.field(item.run_id, f"p:{step('a')}")
    kind, due, registered, head, name, prefix, path = msgpack.unpackb(raw or b"", raw=True)
    assert (kind, registered, head) == (b"w", 1_700_000_000_000_001, pack(["sleep", "nap", 0, {}]))
    assert (name, prefix, path) == (b"app/paid", b"data.id\0" + b"0" * 16, b"data.id")
    assert await shard.do("ZSCORE", "due", f"{item.run_id}:{step('a')}") == str(due).encode()
