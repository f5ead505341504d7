"""record.lua and returned.lua: what commit.lua does in the plain case, and nothing at all in any other."""

import re

import pytest

from stepwell_engine.store.transitions import Leased
from stepwell_engine.views import history
from tests.support.shard import Shard, done, planned, sleep, step

pytestmark = pytest.mark.anyio


def timeless(fields: dict[str, bytes]) -> dict[str, bytes]:
    """A run's hash without what differs between two runs that did the same; an empty field is none, and a history may be told by others."""
    told = history({name.encode(): value for name, value in fields.items()}).encode()
    text = {n: re.sub(rb"\d{13}", b"<ms>", value) for n, value in {**fields, "h": told}.items()}
    return {name: value for name, value in text.items() if value and name not in ("lt", "l")}


async def record(shard: Shard, item: Leased, name: str) -> bytes | None:
    (dv,) = await shard.t.record([item.run_id, item.step, item.token, step(name), b"done"])
    return dv


async def returned(shard: Shard, item: Leased) -> int:
    (code,) = await shard.t.returned([item.run_id, item.token, b"out"])
    return code


async def test_they_do_as_commit_does(shard: Shard) -> None:
    hot, plain = await shard.leased(), await shard.leased()
    assert await record(shard, hot, "a") == b"0"
    assert await shard.commit(plain, "N", ops=done("a")) == "OK"
    assert timeless(await shard.fields(hot.run_id)) == timeless(await shard.fields(plain.run_id))
    assert await returned(shard, hot) == 1
    assert await shard.commit(plain, "F", "c", b"out", b"") == "OK"
    assert timeless(await shard.fields(hot.run_id)) == timeless(await shard.fields(plain.run_id))
    assert await shard.kinds() == ["f inngest/function.finished"] * 2


async def test_many_at_once_each_with_its_reply(shard: Shard) -> None:
    one, two, three = [await shard.leased() for _ in range(3)]
    await shard.cancel(two.run_id)
    calls = [(i.run_id, "", i.token, step("a"), b"r") for i in (one, two, three)]
    assert await shard.t.record([a for c in calls for a in c]) == [b"0", None, b"0"]
    ends = [(i.run_id, i.token, b"out") for i in (one, two, three)]
    assert await shard.t.returned([a for c in ends for a in c]) == [1, 0, 1]
    assert [await shard.status(i.run_id) for i in (one, two, three)] == ["c", "x", "c"]


async def test_sent_again_commit_words_the_reply(shard: Shard) -> None:
    item = await shard.leased()
    assert await record(shard, item, "a") == await record(shard, item, "a") == b"0"
    assert await returned(shard, item) == 1
    before = await shard.fields(item.run_id)
    assert await returned(shard, item) == 0
    assert await shard.commit(item, "F", "c", b"out", b"") == "OK"
    assert await shard.fields(item.run_id) == before


@pytest.mark.parametrize(
    "case", ["fenced", "cancelling", "pending", "planned", "parent", "watched", "suspect"]
)
async def test_what_is_not_plain_is_left_to_commit(shard: Shard, case: str) -> None:
    item = await shard.leased(parent=f"{shard.new_id()}:s" if case == "parent" else "")
    if case in ("fenced", "suspect"):
        stale = item
        shard.wait(20_001)
        await shard.reclaim()
        (item,) = await shard.lease(suspects=1)
        item = stale if case == "fenced" else item
    elif case == "cancelling":
        await shard.cancel(item.run_id)
    elif case == "pending":
        await shard.commit(item, "N", ops=sleep("z", 1_000))
    elif case == "planned":
        await shard.commit(item, "S", ops=planned("a"))
        (item,) = await shard.lease()
    elif case == "watched":
        await shard.t.watch(item.run_id, "me", ttl_ms=60_000)
    before = await shard.fields(item.run_id)
    if case not in ("parent", "watched"):
        assert await record(shard, item, "a") is None
    if case != "suspect":
        assert await returned(shard, item) == 0
    assert await shard.fields(item.run_id) == before
