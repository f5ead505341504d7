"""Debounce and batch windows at their bounds: bytes, counts, clocks, runs that were given up."""

from typing import Any

import msgpack
import pytest

from stepwell_engine.store.transitions import NewRun
from tests.support.shard import CANCELLED, Shard, invoke, step

pytestmark = pytest.mark.anyio

BATCH = {"bt": ["w", 1_000_000, 60_000]}
COLLECT = {"db": ["w", 10_000, 0, True]}
LAST = {"db": ["w", 10_000, 0, False]}


async def admit(
    shard: Shard, flow: dict[str, Any], *, size: int = 10, parent: str = "", ts: int = 1
) -> NewRun:
    """One event with `size` bytes."""
    run = make(shard, flow, size=size, parent=parent, ts=ts)
    await shard.t.admit("g", (), (), [run], record_ttl_ms=60_000)
    return run


def make(
    shard: Shard, flow: dict[str, Any], *, size: int = 10, parent: str = "", ts: int = 1
) -> NewRun:
    blob = shard.new_id().encode() + b"." * size
    packed: bytes = msgpack.packb({**flow, "ts": ts})
    return NewRun(
        shard.new_id(), "1", "app", blob, 0, shard.clock.now_ms(), False, parent, "", packed
    )


async def events(shard: Shard, run: str) -> int:
    packed = await shard.field(run, "eb")
    return 1 + len(msgpack.unpackb(packed, raw=True) if packed else ())


@pytest.mark.parametrize("flow", [BATCH, COLLECT], ids=["batch", "collect"])
async def test_a_window_ends_before_it_has_too_many_bytes(
    shard: Shard, flow: dict[str, Any]
) -> None:
    first = await admit(shard, flow, size=5 << 20)
    await admit(shard, flow, size=4 << 20)
    assert await shard.status(first.run_id) == ""
    third = await admit(shard, flow, size=4 << 20)
    assert await shard.status(first.run_id) == "q"
    assert await events(shard, first.run_id) == 2
    shard.wait(60_001)
    assert await shard.close_due() == ["1"]
    assert await events(shard, third.run_id) == 1


async def test_a_collection_ends_when_it_has_ten_thousand(shard: Shard) -> None:
    runs = [make(shard, COLLECT) for _ in range(10_001)]
    for at in range(0, len(runs), 1_000):
        await shard.t.admit("g", (), (), runs[at : at + 1_000], record_ttl_ms=60_000)
    assert await events(shard, runs[0].run_id) == 10_000
    shard.wait(10_001)
    await shard.close_due()
    assert await events(shard, runs[-1].run_id) == 1


async def test_a_window_is_over_at_its_time_whoever_looks(shard: Shard) -> None:
    first = await admit(shard, BATCH)
    shard.wait(60_001)  # no coordinator looks
    second = await admit(shard, BATCH)
    assert await shard.status(first.run_id) == "q"
    assert await events(shard, first.run_id) == 1
    assert await shard.do("HGET", "window", "r", params=("w",)) == second.run_id.encode()
    shard.wait(60_001)
    await shard.close_due()


async def test_a_clock_set_back_closes_no_window_early_and_loses_none(shard: Shard) -> None:
    first = await admit(shard, BATCH)
    shard.wait(-3_600_000)
    await admit(shard, BATCH)
    assert (await shard.due()).handled == 0
    shard.wait(3_600_000 + 60_001)
    await shard.close_due()
    assert await events(shard, first.run_id) == 2


async def test_a_window_moved_on_is_not_closed_by_its_old_time(shard: Shard) -> None:
    first = await admit(shard, LAST)
    shard.wait(6_000)
    await admit(shard, LAST, ts=0)
    shard.wait(6_000)
    assert await shard.close_due() == []
    shard.wait(4_001)
    assert await shard.close_due() == ["1"]
    assert await shard.field(first.run_id, "e") == first.blob


async def test_a_run_given_up_before_it_began_takes_no_others_with_it(shard: Shard) -> None:
    caller = await shard.leased(number="9")
    assert await shard.commit(caller, "S", ops=invoke("call", 10**9)) == "OK"
    parent = f"{caller.run_id}:{step('call')}"
    first = await admit(shard, BATCH, parent=parent)
    # What says that the window is open outlives it; without it, the cancel can't know.
    await shard.do("DEL", "outcome", params=(first.run_id,))
    assert await shard.t.cancel(first.run_id, error=CANCELLED, grace_ms=1, tombstone="1") == "k"
    second = await admit(shard, BATCH)
    record = await shard.field(caller.run_id, f"s:{step('call')}")
    assert record is not None
    assert b"cancelled before it began" in record
    shard.wait(60_001)
    await shard.close_due()
    assert await shard.status(second.run_id) == "q"
    assert await events(shard, second.run_id) == 1


async def test_a_window_that_is_ended_before_its_time_is_a_cancelled_run(shard: Shard) -> None:
    first = await admit(shard, BATCH)
    await admit(shard, BATCH)
    items = [item.decode() for item in await shard.do("ZRANGE", "due", 0, -1)]
    assert await shard.t.close(items) == []
    assert await shard.t.close(items, CANCELLED) == ["1"]
    assert await shard.t.close(items, CANCELLED) == []
    assert await shard.status(first.run_id) == "k"
    assert await events(shard, first.run_id) == 2
    assert await shard.lease() == []
    assert await shard.kinds() == ["f inngest/function.cancelled", "f inngest/function.finished"]


@pytest.mark.parametrize("which", [0, 1])
async def test_an_invoke_that_is_given_up_leaves_the_window_to_others(
    shard: Shard, which: int
) -> None:
    runs = [await admit(shard, {**BATCH, "v": "1"}) for _ in range(2)]
    given_up = runs[which].run_id
    assert await shard.t.cancel(given_up, error=CANCELLED, grace_ms=1, tombstone="1") == ""
    shard.wait(60_001)
    await shard.close_due()
    assert await events(shard, runs[0].run_id) == 2
    assert await shard.status(runs[0].run_id) == "q"
    assert await shard.do("EXISTS", "outcome", params=(runs[0].run_id,)) == 0
    assert await shard.status(runs[1].run_id) == ""


async def test_a_rate_limit_counts_a_batch_once_and_by_its_end(shard: Shard) -> None:
    flow = {"bt": ["w", 2, 60_000], "rl": ["r", 1, 100_000]}
    first, _, third, fourth = [await admit(shard, flow) for _ in range(4)]
    assert await shard.status(first.run_id) == "q"
    assert await shard.status(third.run_id) == ""
    outcome = await shard.do("HGET", "outcome", "1", params=(third.run_id,))
    assert outcome == b"rate_limited"
    outcome = await shard.do("HGET", "outcome", "1", params=(fourth.blob[:26].decode(),))
    assert outcome == f"batched {third.run_id}".encode()


async def test_acknowledged_entries_are_gone_with_the_decision(shard: Shard) -> None:
    run = make(shard, LAST)
    sid = await shard.do("XADD", "events", "*", "k", "u")
    key = shard.key("events")
    await shard.server.call(key, "XGROUP", "CREATE", key, "g", "0")
    await shard.server.call(key, "XREADGROUP", "GROUP", "g", "c", "STREAMS", key, ">")
    for _ in range(2):
        await shard.t.admit("g", [sid], (), [run], record_ttl_ms=60_000)
    assert [f["k"] for _, f in await shard.entries() if f["k"] != b"w"] == []
    assert await shard.do("HGET", "window", "n", params=("w",)) == b"1"
    shard.wait(10_001)
    await shard.close_due()
