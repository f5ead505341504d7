"""The audit finds what is broken: each test breaks one thing with its bare hands."""

from collections.abc import AsyncIterator

import pytest

from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.nodes import Server
from tests.support.audit import violations
from tests.support.shard import Shard, planned, sleep, step, wait

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
