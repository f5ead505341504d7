"""expired.lua, reclaim.lua, started.lua: who dies with a process, and who is blamed."""

import pytest

from tests.support.shard import CANCELLED, LOST, Shard, done, planned, sleep, step

pytestmark = pytest.mark.anyio


async def crash(shard: Shard) -> list[str]:
    """All workers die; their leases run out."""
    shard.wait(20_001)
    return await shard.reclaim()


async def test_neighbours_of_a_guilty_run_are_unharmed(shard: Shard) -> None:
    for _ in range(5):
        await shard.create()
    items = await shard.lease(5)
    guilty = items[2].run_id
    assert await crash(shard) == ["suspect"] * 5
    outcomes: list[str] = []
    for round_ in range(20):
        found = await shard.lease(10, worker=f"w{round_}", suspects=1)
        assert len(found) <= 1, "one suspect a process"
        if not found:
            break
        (item,) = found
        if item.run_id == guilty:
            outcomes += await crash(shard)
        else:
            assert await shard.commit(item, "F", "c", b"", b"") == "OK"
    assert outcomes == ["suspect", "suspect", "failed"]
    assert await shard.status(guilty) == "f"
    assert await shard.field(guilty, "er") == LOST
    assert [await shard.status(i.run_id) for i in items].count("c") == 4


async def test_a_recorded_step_clears_a_suspect(shard: Shard) -> None:
    item = await shard.leased()
    await crash(shard)
    (item,) = await shard.lease(suspects=1)
    await crash(shard)
    (item,) = await shard.lease(suspects=1)
    assert item.fields[b"cr"] == b"1"
    assert await shard.commit(item, "N", ops=done("a")) == "OK"
    assert await shard.field(item.run_id, "cr") == b"0"
    assert not await shard.field(item.run_id, "su")
    assert await crash(shard) == ["suspect"]
    assert await shard.field(item.run_id, "cr") == b"0"


async def test_a_lapsed_lease_of_a_living_suspect_starts_afresh(shard: Shard) -> None:
    item = await shard.leased()
    await crash(shard)
    (item,) = await shard.lease(suspects=1)
    shard.wait(20_001)
    await shard.alive("w1")
    assert await shard.reclaim() == ["queued"]
    (item,) = await shard.lease()
    assert await crash(shard) == ["suspect"]
    assert await shard.field(item.run_id, "cr") is None, "it ran among others: no count"


async def test_a_suspect_names_the_step_it_runs(shard: Shard) -> None:
    item = await shard.leased()
    await crash(shard)
    (item,) = await shard.lease(suspects=1)
    assert await shard.t.started(item.run_id, "", item.token, b"charge")
    shard.wait(20_001)
    (expired,) = await shard.t.expired(10)
    assert (expired.started, expired.suspect, expired.worker) == (b"charge", True, "w1")
    await shard.t.reclaim([(expired.item, expired.token, 3, LOST)])
    assert not await shard.t.started(item.run_id, "", item.token, b"later")
    (item,) = await shard.lease(suspects=1)
    shard.wait(20_001)
    (expired,) = await shard.t.expired(10)
    assert expired.started == b"", "the step of an older crash isn't blamed again"


async def test_suspects_wait_for_a_worker_that_takes_one(shard: Shard) -> None:
    await shard.leased()
    await crash(shard)
    await shard.create()
    assert [i.suspect for i in await shard.lease()] == [False]
    assert [i.suspect for i in await shard.lease(suspects=1)] == [True]


async def test_reclaim_leaves_what_was_renewed(shard: Shard) -> None:
    item = await shard.leased()
    shard.wait(20_001)
    (expired,) = await shard.t.expired(10)
    await shard.alive("w1", item)
    assert await shard.t.reclaim([(expired.item, expired.token, 3, LOST)]) == [
        (item.run_id, "kept")
    ]
    assert await shard.commit(item, "F", "c", b"", b"") == "OK"


async def test_reclaim_twice_does_it_once(shard: Shard) -> None:
    item = await shard.leased()
    shard.wait(20_001)
    claim = [(item.run_id, item.token, 3, LOST)] * 2
    assert [o for _, o in await shard.t.reclaim(claim)] == ["suspect", "kept"]


async def test_a_planned_step_that_kills_fails_its_run(shard: Shard) -> None:
    root = await shard.leased()
    await shard.commit(root, "S", ops=(*planned("a"), *planned("b"), *sleep("c", 9_999_999)))
    await shard.lease()
    outcomes = [await crash(shard)]
    for _ in range(2):
        await shard.lease(suspects=1)
        outcomes.append(await crash(shard))
    # Both planned steps are suspects; each is leased alone and counts for itself.
    while await shard.status(root.run_id) == "r":
        await shard.lease(suspects=1)
        outcomes.append(await crash(shard))
    assert outcomes[0] == ["suspect", "suspect"]
    assert outcomes[-1] == ["failed"]
    assert len(outcomes) <= 7
    assert await shard.lease(suspects=1) == []


async def test_a_failed_run_takes_its_leased_root_along(shard: Shard) -> None:
    root = await shard.leased()
    await shard.commit(root, "N", ops=planned("a"))
    await shard.lease(worker="w2")
    for n in range(4):
        shard.wait(12_000)
        await shard.alive("w1", root)
        shard.wait(12_000)
        await shard.alive("w1", root)
        await shard.reclaim()
        await shard.lease(worker=f"v{n}", suspects=1)
    assert await shard.status(root.run_id) == "f"
    assert await shard.do("ZCARD", "leases") == 0
    assert await shard.do("LRANGE", "control", -1, -1, params=("w1",)) == [
        b"c" + root.run_id.encode()
    ]


async def test_a_crash_while_cancelling_ends_as_cancelled(shard: Shard) -> None:
    root = await shard.leased()
    await shard.commit(root, "N", ops=planned("a"))
    await shard.lease(worker="w2")
    shard.wait(15_000)
    await shard.cancel(root.run_id)
    shard.wait(5_001)
    assert sorted(await shard.reclaim()) == ["cancelled", "kept"]
    assert await shard.status(root.run_id) == "k"
    assert await shard.field(root.run_id, "er") == CANCELLED
    assert await shard.do("ZCARD", "due") == 0


async def test_a_slow_commit_after_reclaim_is_fenced(shard: Shard) -> None:
    root = await shard.leased()
    await shard.commit(root, "S", ops=planned("a"))
    (item,) = await shard.lease()
    await crash(shard)
    assert await shard.commit(item, "D", ops=done("a")) == "FENCED"
    assert await shard.field(root.run_id, f"s:{step('a')}") is None
