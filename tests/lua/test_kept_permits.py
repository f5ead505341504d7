"""Two shared gates, both at home on other shards: who waits for the second permit keeps the first, and nobody keeps one for nothing."""

import pytest

from tests.support.audit import assert_sound
from tests.support.gates import gate
from tests.support.limited import add, end, home, runs, say
from tests.support.shard import Shard

pytestmark = pytest.mark.anyio

FIRST, LAST = gate("C", "1", "first"), gate("C", "0", "last")
BOTH = f"{LAST},{FIRST}"
"""In no order: `first` comes first."""
RUNS = gate("R", "0", "run")
HELD = f"{RUNS},{FIRST}"


async def news(shard: Shard) -> list[tuple[str, str]]:
    """Messages since the last look: kind, gate."""
    found = [
        (f["k"].decode(), f["b"].decode().strip("_")) for _, f in await shard.entries("outbox")
    ]
    await shard.do("DEL", "outbox")
    return found


async def grants(shard: Shard, part: str, permit: str, word: str = "") -> None:
    word = word or f"{permit[2:]} 1"
    await shard.t.permit("G", part[2:], permit, word=word, home=home(part))


async def kept(shard: Shard, part: str) -> list[str]:
    found = await shard.do("ZRANGE", "kept", 0, -1, params=(part[2:],))
    return [member.decode() for member in found]


async def between(shard: Shard, key: str = BOTH) -> str:
    """A run that has the first permit and waits for the last."""
    await say(shard, 1, 1, shards=4)
    run = await add(shard, key)
    assert await runs(shard) == []
    assert await news(shard) == [("g", "first")]
    await grants(shard, FIRST, "0-1")
    assert await runs(shard) == []
    assert await news(shard) == [("g", "last")]
    assert await kept(shard, FIRST) == [f"1:{key}"]
    return run


async def test_who_waits_for_the_second_keeps_the_first(shard: Shard) -> None:
    run = await between(shard)
    await assert_sound(shard.server, shards=4)
    # Nobody else of this shard takes it, or gives it back.
    other = await add(shard, FIRST)
    assert await runs(shard) == []
    assert await news(shard) == [("g", "first")]
    await grants(shard, LAST, "0-2")
    (item,) = await shard.lease(50)
    assert item.run_id == run
    assert await kept(shard, FIRST) == []
    assert await news(shard) == []
    await end(shard, item)
    assert sorted(await news(shard)) == [("h", "first"), ("h", "last")]
    await grants(shard, FIRST, "0-3")
    assert await runs(shard) == [other]


async def test_who_is_cancelled_keeps_nothing(shard: Shard) -> None:
    run = await between(shard)
    await shard.cancel(run)
    assert await kept(shard, FIRST) == []
    assert await news(shard) == [("h", "first")]
    await grants(shard, LAST, "0-2")
    assert await news(shard) == [("h", "last")]


async def test_who_is_cancelled_on_its_way_keeps_nothing(shard: Shard) -> None:
    run = await between(shard)
    await grants(shard, LAST, "0-2")
    assert await kept(shard, FIRST) == [f"1:{BOTH}"]
    await shard.cancel(run)
    assert await kept(shard, FIRST) == []
    assert sorted(await news(shard)) == [("h", "first"), ("h", "last")]


async def test_what_is_kept_is_recalled_when_its_limit_changes(shard: Shard) -> None:
    run = await between(shard)
    # Everybody tries again, and finds that what he kept is of the old limit.
    await say(shard, 1, 2, shards=4, version=2)
    await news(shard)
    assert await runs(shard) == []
    assert await kept(shard, FIRST) == []
    assert await news(shard) == [("h", "first"), ("g", "first")]
    await assert_sound(shard.server, shards=4)
    # `last` is granted meanwhile: nobody waits for it any more.
    await grants(shard, LAST, "0-2", "3 1")
    assert ("h", "last") in await news(shard)
    await grants(shard, FIRST, "0-4", "4 2")
    assert await runs(shard) == []
    ((kind, _),) = await news(shard)
    assert kind == "g"
    (permit,) = await shard.do("HKEYS", "asks", params=(LAST[2:],))
    await grants(shard, LAST, permit.decode())
    assert await runs(shard) == [run]


async def test_a_gate_of_its_own_function_keeps_nobody_waiting(shard: Shard) -> None:
    lock = gate("s", "-", "lock")
    await say(shard, 1, 1, shards=4)
    await add(shard, lock)
    assert len(await runs(shard)) == 1
    await add(shard, f"{BOTH},{lock}")
    assert await runs(shard) == []
    await grants(shard, FIRST, "0-1")
    assert await runs(shard) == []
    await grants(shard, LAST, "0-2")
    await news(shard)
    assert await runs(shard) == []
    assert await kept(shard, FIRST) == await kept(shard, LAST) == []
    assert sorted(await news(shard)) == [("h", "first"), ("h", "last")]


async def test_runs_come_before_steps(shard: Shard) -> None:
    """Who has begun holds the one and waits for the other: so does who has not."""
    await say(shard, 1, 1, shards=4)
    run = await add(shard, HELD)
    assert await runs(shard) == []
    await grants(shard, FIRST, "0-1")
    assert await runs(shard) == []
    assert await news(shard) == [("g", "first"), ("h", "first"), ("g", "run")]
    await grants(shard, RUNS, "0-2")
    assert await runs(shard) == []
    assert await kept(shard, RUNS) == [f"1:{HELD}"]
    assert await news(shard) == [("g", "first")]
    await assert_sound(shard.server, shards=4)
    await grants(shard, FIRST, "0-3")
    assert await runs(shard) == [run]
