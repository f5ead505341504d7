"""ingest.lua, fanout.lua, plan.lua, register.lua, namespace.lua: events in, runs out."""

import contextlib

import pytest
from redis.exceptions import ResponseError

from stepwell.ids import run_id
from stepwell_engine.store.transitions import NewEvent, NewRun
from tests.support.shard import Shard

pytestmark = pytest.mark.anyio

GROUP = "stepwell"


def event(char: str, id_hash: str = "") -> NewEvent:
    return NewEvent("app/x", b"data", char * 16, id_hash)


async def read(shard: Shard, consumer: str = "one") -> list[bytes]:
    """Deliver what is new to a consumer; the entries' ids."""
    key = shard.keys.events
    with contextlib.suppress(ResponseError):  # it is there
        await shard.server.call(key, "XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM")
    args = ("GROUP", GROUP, consumer, "COUNT", 100, "STREAMS", key, ">")
    reply = await shard.server.call(key, "XREADGROUP", *args)
    return [entry for entry, _ in reply[0][1]] if reply else []


def run_of(shard: Shard, name: str) -> NewRun:
    run = run_id(shard.clock.now_ms(), name, "app", "fn", 0)
    return NewRun(run, "1", "app", b"blob", 0, shard.clock.now_ms())


async def test_events_are_accepted_once_by_seed(shard: Shard) -> None:
    first = await shard.send("seed", event("1"), event("2"))
    shard.wait(60_000)
    assert await shard.send("seed", event("1"), event("2")) == first
    ids = [f["i"].decode() for _, f in await shard.entries()]
    assert ids == [first[0] + "1" * 16, first[0] + "2" * 16]
    assert first[1] == ["", ""]


async def test_a_user_id_counts_for_a_day(shard: Shard) -> None:
    stamp, _ = await shard.send("a", event("1", "h"))
    _, (dup, other) = await shard.send("b", event("2", "h"), event("3", "other"))
    assert (dup, other) == (stamp + "1" * 16, "")
    _, (one, two) = await shard.send("c", event("4", "new"), event("5", "new"))
    assert one == ""
    assert two.endswith("4" * 16), "within one call, too"
    shard.wait(86_400_001)
    assert (await shard.send("d", event("6", "h")))[1] == [""]


async def test_a_full_stream_refuses_all(shard: Shard) -> None:
    await shard.send("a", event("1"), event("2"))
    with pytest.raises(ResponseError, match="FULL 2"):
        await shard.send("b", event("3"), event("4", "h"), max_len=3)
    assert len(await shard.entries()) == 2
    assert (await shard.send("c", event("5", "h")))[1] == [""], "a refused event isn't remembered"


async def test_an_owed_event_keeps_its_id(shard: Shard) -> None:
    await shard.t.ingest(
        "s", [NewEvent("app/x", b"", "A" * 26)], max_len=9, dedupe_ms=9, deadline=None
    )
    ((_, sent),) = await shard.entries()
    assert sent["i"] == b"A" * 26


async def test_fanout_acknowledges_in_the_same_write(shard: Shard) -> None:
    await shard.send("a", event("1"))
    entries = await read(shard)
    new = run_of(shard, "e")
    args = (GROUP, entries, [("e" * 26, b"plan")], [new])
    assert await shard.t.fanout(*args, record_ttl_ms=60_000) == 1
    assert await shard.entries() == [] or [f["k"] for _, f in await shard.entries()] == [b"w"]
    pending = await shard.do("XPENDING", "events", GROUP)
    assert pending[0] == 0
    assert await shard.do("GET", "record", params=("e" * 26,)) == b"plan"
    assert await shard.t.fanout(*args, record_ttl_ms=60_000) == 0, "sent again"
    assert len(await shard.lease()) == 1


async def test_a_late_fanout_does_nothing(shard: Shard) -> None:
    await shard.send("a", event("1"))
    entries = await read(shard)
    right, wrong = run_of(shard, "right"), run_of(shard, "wrong")
    await shard.t.fanout(GROUP, entries, [("e" * 26, b"plan")], [right], record_ttl_ms=60_000)
    late = await shard.t.fanout(
        GROUP, entries, [("e" * 26, b"other")], [right, wrong], record_ttl_ms=9
    )
    assert late == 0
    assert await shard.status(wrong.run_id) == ""
    assert await shard.do("GET", "record", params=("e" * 26,)) == b"plan"


async def test_a_big_batch(shard: Shard) -> None:
    key = shard.keys.events
    await read(shard)
    for n in range(1_200):
        await shard.server.call(key, "XADD", key, "*", "k", "u", "n", str(n))
    entries = [e for _ in range(12) for e in await read(shard)]
    assert len(entries) == 1_200
    assert await shard.t.fanout(GROUP, entries, [], [], record_ttl_ms=9) == 0
    assert await shard.do("XLEN", "events") == 0


async def test_the_first_plan_holds(shard: Shard) -> None:
    assert await shard.t.plan("e", b"one", ttl_ms=60_000) == b"one"
    assert await shard.t.plan("e", b"two", ttl_ms=60_000) == b"one"


async def test_a_namespace_is_opened_once(shard: Shard) -> None:
    assert await shard.t.namespace(3, 1) == (3, 1)
    assert await shard.t.namespace(8, 2) == (3, 1)


async def test_the_latest_start_wins(shard: Shard) -> None:
    v1, rows = await shard.t.register(100, [("app\0a", b"A"), ("app\0b", b"B")])
    assert [(f, w) for f, _, w in rows] == [("app\0a", True), ("app\0b", True)]
    assert len({number for _, number, _ in rows}) == 2
    again, rows2 = await shard.t.register(100, [("app\0a", b"A")])
    assert (again, rows2[0][2]) == (v1, False)
    v2, rows3 = await shard.t.register(300, [("app\0a", b"A2")])
    assert (v2 > v1, rows3[0][1]) == (True, rows[0][1]), "a function keeps its number"
    v3, rows4 = await shard.t.register(200, [("app\0a", b"A")])
    assert (v3, rows4[0][2]) == (v2, False), "an older process doesn't overwrite a newer one"


async def test_a_restart_with_the_same_config_is_the_newer_word(shard: Shard) -> None:
    await shard.t.register(100, [("app\0a", b"A")])
    await shard.t.register(300, [("app\0a", b"A")])
    _, rows = await shard.t.register(200, [("app\0a", b"B")])
    assert rows[0][2] is False
