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
DAY = 86_400_000


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
    assert await shard.cancel(first.run_id) == "k"
    assert await shard.t.close(items) == []
    assert await shard.cancel(first.run_id) == "k"
    assert await events(shard, first.run_id) == 2
    assert await shard.lease() == []
    assert await shard.kinds() == ["f inngest/function.cancelled", "f inngest/function.finished"]


async def give_up(shard: Shard, run: NewRun) -> str:
    """Who invoked with the run's event is cancelled, and its child with it."""
    return await shard.t.cancel(
        run.run_id, error=CANCELLED, grace_ms=1, tombstone="1", child_event=run.blob[:26].decode()
    )


async def window_run(shard: Shard) -> str:
    return (await shard.do("HGET", "window", "r", params=("w",))).decode()  # type: ignore[no-any-return]  # an id


@pytest.mark.parametrize("flow", [BATCH, COLLECT], ids=["batch", "collect"])
@pytest.mark.parametrize("which", [0, 1])
async def test_an_invoke_that_is_given_up_leaves_the_window_to_others(
    shard: Shard, which: int, flow: dict[str, Any]
) -> None:
    runs = [await admit(shard, {**flow, "v": "1"}) for _ in range(2)]
    run = await window_run(shard)
    assert await give_up(shard, runs[which]) == "k"
    assert await give_up(shard, runs[which]) == ""
    assert await shard.do("HGET", "window", "n", params=("w",)) == b"1"
    shard.wait(60_001)
    await shard.close_due()
    assert await shard.status(run) == "q"
    assert await shard.field(run, "e") == runs[1 - which].blob
    assert await events(shard, run) == 1
    for gone in runs[which].run_id, runs[which].blob[:26].decode():
        assert await shard.do("HGET", "outcome", "1", params=(gone,)) == b"cancelled"
    assert await shard.do("EXISTS", "outcome", params=(run,)) == 0
    # What began for it alone ends with it.
    assert await give_up(shard, runs[1 - which]) == "k"
    assert await shard.status(run) == "k"


@pytest.mark.parametrize("flow", [BATCH, COLLECT, LAST], ids=["batch", "collect", "last"])
async def test_a_window_with_nobody_else_is_cancelled_with_its_invoke(
    shard: Shard, flow: dict[str, Any]
) -> None:
    rated = {
        **flow,
        "v": "1",
        "rl": ["r", 1, 100_000],
        "sg": ["s", "cancel", 1_000],
        "f": ["fx", "g"],
    }
    holder = await shard.create(flow={"sg": ["s", "cancel", 1_000], "f": ["fx", "g"]})
    only = await admit(shard, rated)
    run = await window_run(shard)
    assert await give_up(shard, only) == "k"
    assert await shard.status(run) == "k"
    assert await shard.status(only.run_id) == ""
    # It took nobody's place.
    assert await shard.status(holder) == "q"
    assert await shard.do("EXISTS", "rate", params=("r",)) == 0


async def test_a_run_that_has_others_events_goes_on_without_an_invoke(shard: Shard) -> None:
    runs = [await admit(shard, {**BATCH, "v": "1"}) for _ in range(2)]
    run = await window_run(shard)
    shard.wait(60_001)
    await shard.close_due()
    for each in runs:
        assert await give_up(shard, each) == ""
    assert await shard.status(run) == "q"


async def test_who_waits_for_a_replaced_invoke_is_told_at_once(shard: Shard) -> None:
    runs = [await admit(shard, {**LAST, "v": "1"}, ts=ts) for ts in (2, 1, 3)]
    run = await window_run(shard)
    told = [await shard.t.watch(r.run_id, "w", ttl_ms=1_000) for r in runs]
    assert told == [f"replaced {run}", f"replaced {run}", "open"]
    # Giving up what was replaced does nothing, nor does a cancel of the invoke's own id by hand.
    assert await give_up(shard, runs[0]) == ""
    assert await shard.cancel(runs[2].run_id) == ""
    shard.wait(10_001)
    await shard.close_due()
    assert await shard.t.watch(runs[2].run_id, "w", ttl_ms=1_000) == f"debounced {run}"
    assert await shard.do("LPOP", "reply", params=("w",)) == runs[2].run_id.encode()
    assert await shard.field(run, "e") == runs[2].blob


@pytest.mark.parametrize("was", [False, True])
async def test_a_window_goes_on_as_it_was_opened(shard: Shard, was: bool) -> None:
    first = await admit(shard, {"db": ["w", 10_000, 0, was]})
    last = await admit(shard, {"db": ["w", 10_000, 0, not was]}, ts=2)
    shard.wait(10_001)
    await shard.close_due()
    assert await shard.field(first.run_id, "e") == last.blob
    assert await events(shard, first.run_id) == 1 + was


@pytest.mark.parametrize("flow", [BATCH, COLLECT], ids=["batch", "collect"])
async def test_events_are_in_the_order_of_their_acceptance(
    shard: Shard, flow: dict[str, Any]
) -> None:
    """They come by way of several shards. What was sent together stays together, in its order, whenever each shard took it."""

    async def come(send: str, index: int, us: int) -> str:
        run = make(shard, {**flow, "us": us})
        blob = f"0000000000{send * 12}{index:04}".encode()
        await shard.t.admit("g", (), (), [run._replace(blob=blob + b"...")], record_ttl_ms=60_000)
        return run.run_id

    first = await come("B", 1, 500)
    for send, index, us in [("C", 0, 900), ("B", 0, 800), ("A", 0, 700), ("B", 2, 600)]:
        await come(send, index, us)
    shard.wait(60_001)
    await shard.close_due()
    more = msgpack.unpackb(await shard.field(first, "eb") or b"", raw=True)
    alone = await shard.field(first, "e") or b""
    rows = [*more, alone] if await shard.field(first, "el") else [alone, *more]
    assert [row[10:11] + row[25:26] for row in rows] == [b"B0", b"B1", b"B2", b"A0", b"C0"]


async def test_of_equal_times_the_event_accepted_last_stands(shard: Shard) -> None:
    async def come(send: str, index: int, us: int, ts: int = 1) -> str:
        run = make(shard, {**LAST, "us": us}, ts=ts)
        blob = f"0000000000{send * 12}{index:04}".encode()
        await shard.t.admit("g", (), (), [run._replace(blob=blob)], record_ttl_ms=60_000)
        found = await shard.do("HGET", "window", "e", params=("w",))
        return str(found[10:11] + found[25:26], "ascii")

    assert await come("A", 2, 500) == "A2"
    assert await come("A", 1, 900) == "A2"
    assert await come("A", 3, 400) == "A3"
    assert await come("B", 0, 300) == "A3"
    assert await come("C", 0, 600) == "C0"
    assert await come("D", 0, 100, ts=2) == "D0"
    shard.wait(10_001)
    await shard.close_due()


@pytest.mark.parametrize(
    ("flow", "days"),
    [
        ({"bt": ["w", 9, 3 * DAY]}, 3),
        ({"db": ["w", DAY, 3 * DAY, False]}, 3),
        ({"db": ["w", 3 * DAY, 0, True]}, 3),
        (LAST, 0),
    ],
    ids=["batch", "timeout", "period", "short"],
)
async def test_outcomes_live_two_days_beyond_their_window(
    shard: Shard, flow: dict[str, Any], days: int
) -> None:
    run = await admit(shard, flow)
    # Another function's outcome of the same event shortens nothing.
    other = run._replace(
        run_id=shard.new_id(), number="2", flow=msgpack.packb({"db": ["o", 1, 0, False], "ts": 1})
    )
    await shard.t.admit("g", (), (), [other], record_ttl_ms=60_000)
    assert await shard.do("PTTL", "outcome", params=(run.blob[:26].decode(),)) > (2 + days) * DAY
    shard.wait(3 * DAY + 1)
    assert await shard.t.cancel(run.run_id, error=CANCELLED, grace_ms=1) == "k"


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
