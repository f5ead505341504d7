"""P3, write by write: each transition that a worker may send, sent with the token of a lease that was lost."""

import pytest

from stepwell.events import Event
from stepwell.records import RunStatus
from stepwell.triggers import TriggerEvent
from stepwell_workers.memo import done
from tests.support.runs import until
from tests.support.snapshot import changed, snapshot

pytestmark = pytest.mark.anyio

_STEP = "0" * 16
_OTHER = "1" * 16
_HEAD = b"head"
_ID = "0" * 26
_DONE = done("run", "step", 0, 0, 0, 1)

_CLAUSES = {
    "go on": ("N",),
    "suspend": ("S",),
    "complete": ("F", "c", b"\xc0", b""),
    "fail": ("F", "f", b"\xc0", b"01"),
    "cancel": ("F", "k", b"\xc0", b""),
    "retry": ("R", 0, b"01"),
    "retry later": ("R", 60_000, b"01"),
    "hand over": ("Y", "late"),
    "planned step done": ("D",),
}

_OPS = {
    "step": ("d", _STEP, b"dx", b"", 0),
    "step that failed": ("d", _STEP, b"ex", b"01", 0),
    "step that sends": ("d", _STEP, b"dx", b"", 1, "t/x", b"\xc0", _ID, "", ""),
    "step that sends to another shard": (
        "d",
        _STEP,
        b"dx",
        b"",
        1,
        "t/x",
        b"\xc0",
        _ID,
        "h" * 16,
        1,
    ),
    "attempt": ("a", _STEP, 60_000, b"01", _HEAD),
    "sleep": ("z", _STEP, "d", 60_000, _HEAD),
    "sleep until": ("z", _STEP, "u", 60_000, _HEAD),
    "wait": ("w", _STEP, 60_000, "t/x", b"\0" + b"0" * 16, "", _HEAD, ""),
    "wait that looks back": ("w", _STEP, 60_000, "t/x", b"\0" + b"0" * 16, "", _HEAD, "1"),
    "signal": ("g", _STEP, 60_000, _HEAD),
    "invoke": ("i", _STEP, 60_000, _HEAD, b"\xc0", "0" * 16, b"", ""),
    "plan": ("p", _STEP, _HEAD),
    "loser": ("x", _OTHER),
    "mode": ("m", "w"),
}


def _function(client):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")
        return "ours"


async def _lost_lease(engine, holder):
    """A run whose lease a ghost lost, and that `holder` has now: (shard, run id, the ghost's token)."""
    await engine.stop_worker()
    [event_id] = await engine.send(Event("t/go"))
    [run_id] = (await engine.event(event_id)).run_ids
    await engine.settle()
    shard = engine.store.of_run(run_id)
    [old] = await shard.lease("ghost", "ghost", ["shop"], want=1, lease_ms=1_000, suspects=0)
    await engine.advance("1m")
    if holder == "another worker":
        [new] = await shard.lease("heir", "heir", ["shop"], want=1, lease_ms=3_600_000, suspects=9)
        assert new.run_id == run_id
    elif holder == "nobody, it is parked":
        await engine.start_worker()
        await until(lambda: not engine.worker._entries)
        await engine.settle()
    elif holder == "nobody, it has ended":
        await engine.start_worker()
        await engine.advance("2h")
        assert (await engine.wait(run_id)).output == "ours"
    return shard, run_id, old.token


_HOLDERS = (
    "nobody, it is queued",
    "another worker",
    "nobody, it is parked",
    "nobody, it has ended",
)


@pytest.mark.parametrize("holder", _HOLDERS)
async def test_every_commit_of_an_old_lease_is_refused(client, stepwell_engine, holder):
    _function(client)
    async with stepwell_engine(client) as engine:
        shard, run_id, token = await _lost_lease(engine, holder)
        before = await snapshot(engine.store)
        for said, clause in _CLAUSES.items():
            for what, op in {"nothing": (), **_OPS}.items():
                code, *_ = await shard.commit(run_id, "", token, 0, clause, op)
                assert code in (b"FENCED", b"GONE"), (said, what)
        every = tuple(arg for op in _OPS.values() for arg in op)
        code, *_ = await shard.commit(run_id, "", token, 0, ("N",), every)
        assert code in (b"FENCED", b"GONE")
        assert changed(before, await snapshot(engine.store)) == []


@pytest.mark.parametrize("holder", _HOLDERS)
async def test_so_is_every_write_that_is_no_commit(client, stepwell_engine, holder):
    _function(client)
    async with stepwell_engine(client) as engine:
        shard, run_id, token = await _lost_lease(engine, holder)
        before = await snapshot(engine.store)
        assert await shard.record([run_id, "", token, _STEP, b"dx"]) == [None]
        assert await shard.returned([run_id, token, b"\xc0"]) == [0]
        assert not await shard.started(run_id, "", token, b"step")
        lost = await shard.renew("ghost", [(run_id, token)], alive_ms=1, lease_ms=3_600_000)
        assert lost == [run_id]
        assert changed(before, await snapshot(engine.store)) == []


async def test_the_hot_forms_refuse_one_and_take_its_neighbours(client, stepwell_engine):
    """Calls are shared by the runs of a worker: one lost lease among them changes nothing for the others."""
    _function(client)
    async with stepwell_engine(client, shards=1) as engine:
        await engine.stop_worker()
        ids = await engine.send([Event("t/go") for _ in range(3)])
        runs = [(await engine.event(event_id)).run_ids[0] for event_id in ids]
        await engine.settle()
        shard = engine.store.shards[0]
        leased = await shard.lease("w", "w", ["shop"], want=3, lease_ms=3_600_000, suspects=0)
        tokens = {item.run_id: item.token for item in leased}
        tokens[runs[1]] = "old"
        said = await shard.record([a for r in runs for a in (r, "", tokens[r], _STEP, _DONE)])
        assert [reply is None for reply in said] == [False, True, False]
        over = await shard.returned([a for r in runs for a in (r, tokens[r], b"\xa4ours")])
        assert over == [1, 0, 1]
        found = [(await engine.run(run)).status for run in runs]
        assert found == [RunStatus.COMPLETED, RunStatus.RUNNING, RunStatus.COMPLETED]
        await engine.client.cancel_run(runs[1])
