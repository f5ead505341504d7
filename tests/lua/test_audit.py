"""The audit finds what is broken: each test breaks one thing with its bare hands."""

from collections.abc import AsyncIterator

import pytest

from stepwell_engine.audit_gates import Gate, home_of
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.nodes import Server
from tests.support.audit import violations
from tests.support.gates import gate
from tests.support.shard import WATCHED, Shard, planned, sleep, step, wait

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shard(embedded: EmbeddedServer) -> AsyncIterator[Shard]:
    """As in conftest, but nobody minds what the test leaves."""
    embedded.command("FLUSHALL")
    server = await Server.open(embedded.url)
    yield Shard(server)
    await server.aclose()


async def rules(shard: Shard) -> list[str]:
    return sorted(found.rule for found in await violations(shard.server))


async def parked(shard: Shard) -> str:
    item = await shard.leased()
    ops = (*sleep("z", 99_000), *wait("w", "app/x", path="p"), *planned("p"))
    assert await shard.commit(item, "S", ops=ops) == "OK"
    assert await rules(shard) == []
    return item.run_id


async def test_foreign_keys_and_missing_ttls(shard: Shard) -> None:
    await shard.server.call("x", "SET", shard.keys.root + ":nobody", "1")
    await shard.do("SET", "record", "x", params=("e",))
    await shard.do("SET", "bell", "x", params=("app",))
    await shard.server.call("x", "SET", shard.keys.root + ":wake", "1", "PX", 60_000)
    assert await rules(shard) == ["no TTL", "unexpected TTL", "unknown key", "wrong type"]


async def test_a_queued_run_in_no_queue(shard: Shard) -> None:
    run = await shard.create()
    await shard.do("ZREM", "starts", run, params=("1", ""))
    assert await rules(shard) == ["limbo", "ready"]


async def test_a_queue_without_turns(shard: Shard) -> None:
    await shard.create()
    await shard.do("DEL", "ready_fns", params=("app",))
    assert await rules(shard) == ["not ready"]


async def test_a_run_queued_twice(shard: Shard) -> None:
    run = await shard.create()
    await shard.do("ZADD", "suspects", 1, run, params=("app",))
    assert "queued twice" in await rules(shard)


async def test_a_pending_without_timer(shard: Shard) -> None:
    run = await parked(shard)
    await shard.do("ZREM", "due", f"{run}:{step('z')}")
    assert await rules(shard) == ["limbo"]


async def test_a_timer_without_pending(shard: Shard) -> None:
    await shard.do("ZADD", "due", 1, f"{await parked(shard)}:{step('other')}")
    assert await rules(shard) == ["stray"]


async def test_waits_and_their_counts(shard: Shard) -> None:
    await parked(shard)
    await shard.do("HINCRBY", "wait_paths", "p", 1, params=("app/x",))
    assert await rules(shard) == ["count"]
    await shard.do("DEL", "waits", params=("app/x",))
    assert await rules(shard) == ["count", "wait"]
    await shard.do("ZADD", "waits", 0, "p\0nobody", params=("app/x",))
    assert await rules(shard) == ["count", "stray", "wait"]


async def test_np_and_planned_items(shard: Shard) -> None:
    run = await parked(shard)
    await shard.do("HINCRBY", "run", "np", 1, params=(run,))
    assert await rules(shard) == ["np"]
    await shard.do("ZREM", "resumes", f"{run}:{step('p')}", params=("1", ""))
    assert await rules(shard) == ["limbo", "np", "ready"]


async def test_leases(shard: Shard) -> None:
    item = await shard.leased()
    await shard.do("ZREM", "leases", item.run_id)
    assert await rules(shard) == ["limbo"]
    await shard.do("ZADD", "leases", 1, shard.new_id())
    assert await rules(shard) == ["limbo", "stray"]


async def test_a_parked_run_with_nothing_to_wait_for(shard: Shard) -> None:
    item = await shard.leased()
    await shard.do("HSET", "run", "rs", "p", "l", "", params=(item.run_id,))
    await shard.do("DEL", "leases")
    assert await rules(shard) == ["limbo"]


async def test_ended_runs(shard: Shard) -> None:
    item = await shard.leased()
    await shard.commit(item, "F", "c", b"", b"")
    await shard.do("ZADD", "due", 1, item.run_id)
    await shard.do("HSET", "run", "l:x", "t", params=(item.run_id,))
    assert await rules(shard) == ["lease", "stray"]
    await shard.do("DEL", "ended")
    await shard.do("DEL", "fn_runs", params=("1",))
    assert await rules(shard) == ["ended", "lease", "not listed", "stray"]


async def test_cancelling_without_an_end(shard: Shard) -> None:
    item = await shard.leased()
    await shard.cancel(item.run_id)
    assert await rules(shard) == []
    await shard.do("DEL", "due")
    assert await rules(shard) == ["limbo"]


async def watched(shard: Shard) -> str:
    """A run that an event and its timeouts can cancel."""
    run = await shard.create(flow=WATCHED)
    assert await rules(shard) == []
    return run


async def test_cancel_registrations(shard: Shard) -> None:
    run = await watched(shard)
    await shard.do("HSET", "run", "fx", "t", params=(run,))
    assert await rules(shard) == ["cancel"]
    await shard.do("HSET", "run", "fx", "tc1", params=(run,))
    await shard.do("ZREM", "waits", f"~p\0key{run}:!0", params=("app/stop",))
    assert await rules(shard) == ["cancel"]
    await shard.do("HDEL", "run", "cn:0", params=(run,))
    assert await rules(shard) == ["cancel", "count"]


async def test_a_held_run(shard: Shard) -> None:
    run = await watched(shard)
    await shard.do("HSET", "run", "hd", "1-1", params=(run,))
    assert await rules(shard) == ["held"]
    await shard.do("HDEL", "run", "hd", params=(run,))
    assert await shard.cancel(run) == "k"
    await shard.do("HSET", "run", "hd", "1-1", params=(run,))
    assert await rules(shard) == ["cancel"]


async def test_a_registration_that_outlives_its_run(shard: Shard) -> None:
    run = await watched(shard)
    await shard.do("HDEL", "run", "fx", params=(run,))
    assert await shard.cancel(run) == "k"
    assert await rules(shard) == ["cancel", "count", "stray", "stray"]


async def test_timeouts(shard: Shard) -> None:
    run = await watched(shard)
    await shard.do("ZREM", "due", f"{run}:<")
    assert await rules(shard) == ["timeout"]
    await shard.lease()
    assert await rules(shard) == []
    await shard.do("ZREM", "due", f"{run}:>")
    assert await rules(shard) == ["timeout"]
    await shard.do("ZADD", "due", 1, f"{run}:<")
    assert await rules(shard) == ["stray", "timeout"]


STEPS, RUNS = gate("c", "0", "steps"), gate("r", "1", "runs")
RATE, SHARED = gate("t", "-", "rate"), gate("C", "0", "shared")


async def gated(shard: Shard, key: str, *, shards: int = 1) -> None:
    """Two runs of a key that lets one go on: one is leased, the other's key parked."""
    await shard.t.configure(1, [("1", "app", 1, 1, 60_000_000, 1, shards)], most=10)
    for _ in range(2):
        await shard.create(key=key)
    await shard.lease()
    assert await rules(shard) == []


async def test_slots_of_nobody_and_work_without_slots(shard: Shard) -> None:
    await gated(shard, STEPS)
    await shard.do("ZADD", "slots", 1, "nobody", params=(STEPS[2:],))
    assert await rules(shard) == ["slot"]
    await shard.do("DEL", "slots", params=(STEPS[2:],))
    assert await rules(shard) == ["slot"]


async def test_a_begun_run_without_its_slot(shard: Shard) -> None:
    await gated(shard, RUNS)
    await shard.do("DEL", "slots", params=(RUNS[2:],))
    assert await rules(shard) == ["slot"]


async def test_a_suspect_keeps_its_slot(shard: Shard) -> None:
    await gated(shard, STEPS)
    shard.wait(20_001)
    assert await shard.reclaim() == ["suspect"]
    assert await rules(shard) == []
    await shard.do("DEL", "slots", params=(STEPS[2:],))
    assert await rules(shard) == ["slot"]


async def test_a_queue_that_is_neither_ready_nor_parked(shard: Shard) -> None:
    await gated(shard, STEPS)
    await shard.do("DEL", "parks", params=("1",))
    assert await rules(shard) == ["not ready", "parked"]
    await shard.do("DEL", "parked", params=(STEPS[2:],))
    assert await rules(shard) == ["not ready"]


async def test_resumes_are_not_excused_by_parked_starts(shard: Shard) -> None:
    await gated(shard, RUNS)
    run = (await shard.do("ZRANGE", "leases", 0, -1))[0].decode()
    await shard.do("DEL", "leases")
    await shard.do("HSET", "run", "rs", "q", "l", "", params=(run,))
    await shard.do("ZADD", "resumes", 1, run, params=("1", RUNS))
    assert await rules(shard) == ["not ready"]


async def test_a_parked_queue_without_items(shard: Shard) -> None:
    await gated(shard, STEPS)
    other = gate("c", "0", "other")
    await shard.do("HSET", "parks", other, "w" + other[2:], params=("1",))
    await shard.do("ZADD", "parked", 1, "1:" + other, params=(other[2:],))
    assert await rules(shard) == ["parked"]
    await shard.do("DEL", "parked", params=(other[2:],))
    assert await rules(shard) == ["parked", "parked"]


async def test_a_throttle_without_its_moment(shard: Shard) -> None:
    await gated(shard, RATE)
    await shard.do("ZREM", "due", "*" + RATE[2:])
    assert await rules(shard) == ["parked"]


async def test_a_queue_that_waits_for_a_permit_nobody_was_asked_for(shard: Shard) -> None:
    """The gate's home is another shard."""
    shards = next(n for n in range(2, 9) if home_of(Gate("C", SHARED[2:]), n, 0) != 0)
    await gated(shard, SHARED, shards=shards)
    await shard.do("DEL", "asks", params=(SHARED[2:],))
    assert await rules(shard) == ["permit"]


async def test_permits_kept_for_nobody(shard: Shard) -> None:
    shards = next(n for n in range(2, 9) if home_of(Gate("C", SHARED[2:]), n, 0) != 0)
    both = f"{SHARED},{STEPS}"
    await gated(shard, both, shards=shards)
    await shard.do("ZADD", "kept", 1, "1:" + both, params=(SHARED[2:],))
    assert await rules(shard) == ["kept"], "more than there are"
    await shard.do("ZADD", "permits", 1, "0-9", params=(SHARED[2:],))
    assert await rules(shard) == []
    await shard.do("ZADD", "permits", 1, "0-8", params=(SHARED[2:],))
    await shard.do("ZADD", "kept", 1, "1:" + SHARED, params=(SHARED[2:],))
    assert await rules(shard) == ["kept"], "nothing of that queue waits"
    await shard.do("ZREM", "kept", "1:" + SHARED, params=(SHARED[2:],))
    await shard.do("HSET", "flow", "n", 1, params=("1",))
    assert await rules(shard) == ["kept"], "at home nothing is kept"


async def test_another_shard_in_line_without_its_limit(shard: Shard) -> None:
    await shard.do("ZADD", "parked", 1, "@3-1", params=(SHARED[2:],))
    assert await rules(shard) == ["permit"]
    await shard.do("HSET", "asks", "3-1", "1 5", params=(SHARED[2:],))
    assert await rules(shard) == []
