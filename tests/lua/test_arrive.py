"""arrive.lua: the server creates what a coordinator would have asked for, and leaves whatever is not that simple."""

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from stepwell.events import Event, encode_event
from stepwell.ids import event_entropy, function_cause
from stepwell_engine.entries import Batch, Entry
from stepwell_engine.planning import start_all
from stepwell_engine.standing import Arrived
from stepwell_engine.store.shapes import Arg
from stepwell_engine.store.transitions import NewEvent, NewRun
from stepwell_engine.triggers import RegisteredFunction
from tests.support.shard import Shard, wait

pytestmark = pytest.mark.anyio

GROUP, ME, MOST = "stepwell", "c-1", 4
FUNCTIONS = [
    RegisteredFunction(app, fn, str(number), 0, {})
    for number, (app, fn) in enumerate([("app", "one"), ("app", "two"), ("größe", "drei\0")], 1)
]


def listed(*names: str, functions: Sequence[RegisteredFunction] = FUNCTIONS) -> list[Arg]:
    """The names, each wanted by all those functions, as standing.py gives them."""
    each = [(f.number, f.app, function_cause(f.app, f.fn)) for f in functions]
    flat: list[Arg] = [value for row in each for value in row]
    return [value for name in names for value in (name, len(functions), *flat)]


async def accept(shard: Shard, *events: Event, kind: str = "u", consumer: str = ME) -> list[Entry]:
    """Send events and deliver them to the consumer; their entries."""
    key = shard.keys.events
    with contextlib.suppress(ResponseError):  # it is there
        await shard.server.call(key, "XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM")
    seed = shard.new_id()
    new = [
        NewEvent(e.name, encode_event(e), event_entropy(seed, i), kind=kind)
        for i, e in enumerate(events)
    ]
    await shard.send(seed, *new)
    args = ("GROUP", GROUP, consumer, "COUNT", 100, "STREAMS", key, ">")
    reply = await shard.server.call(key, "XREADGROUP", *args)
    return Batch(0, reply[0][1]).entries


async def arrive(
    shard: Shard, names: Sequence[Arg], version: bytes = b"1", after: Arg = "0-0"
) -> Arrived:
    return Arrived.read(await shard.t.arrive(GROUP, ME, after, MOST, version, names))


def runs_of(entry: Entry) -> list[NewRun]:
    """What a coordinator makes of it."""
    return start_all(entry, FUNCTIONS, len(entry.name.encode()), 0)


async def assert_created(shard: Shard, entries: Sequence[Entry]) -> None:
    """Their runs are there, just as fanout.lua makes them."""
    expected = [run for entry in entries for run in runs_of(entry)]
    for run in expected:
        fields = await shard.fields(run.run_id)
        place = f"{run.created_ms}.{run.order:03d}" if run.order else str(run.created_ms)
        told = {k: fields[k] for k in ("st", "f", "a", "t", "e", "rs")}
        assert told == {
            "st": b"q", "f": run.number.encode(), "a": run.lane.encode(), "t": place.encode(),
            "e": run.blob, "rs": b"q",
        }  # fmt: skip
        assert fields.keys() == {*told, "qa"}
    again = await shard.t.fanout(GROUP, [], [], expected, record_ttl_ms=60_000)
    assert again == 0, "their ids are the same"


@pytest.fixture
async def ready(shard: Shard) -> Shard:
    """A shard whose registry has version 1."""
    await shard.do("SET", "functions_version", "1")
    return shard


async def test_what_arrives_is_created_acknowledged_and_can_be_leased(ready: Shard) -> None:
    entries = await accept(ready, Event("a/b", {"n": 1}), Event("a/c"), Event("a/b"))
    done = await arrive(ready, listed("a/a", "a/b", "a/c"))
    assert done.entries == {entry.sid for entry in entries}
    assert done.runs == {"1": 3, "2": 3, "3": 3}
    await assert_created(ready, entries)
    assert (await ready.do("XPENDING", "events", GROUP))[0] == 0
    assert await ready.kinds() == []
    items = await ready.lease(100, lanes=("app", "größe"))
    assert sorted(i.run_id for i in items) == sorted(
        run.run_id for entry in entries for run in runs_of(entry)
    )
    assert Arrived.read(None) == await arrive(ready, listed("a/b")) == Arrived(set(), {})


async def test_what_was_handled_before_is_not_made_anew(ready: Shard) -> None:
    (entry,) = await accept(ready, Event("a/b"))
    await ready.t.fanout(GROUP, [], [], runs_of(entry), record_ttl_ms=60_000)
    done = await arrive(ready, listed("a/b"))
    assert done == Arrived({entry.sid}, {"1": 0, "2": 0, "3": 0})
    assert len(await ready.lease(100, lanes=("app", "größe"))) == 3


async def test_what_another_has_deleted_is_nobodys(ready: Shard) -> None:
    gone, left = await accept(ready, Event("a/b"), Event("a/b"))
    await ready.do("XDEL", "events", gone.sid)
    done = await arrive(ready, listed("a/b"))
    assert done.entries == {left.sid}
    assert await ready.fields(runs_of(gone)[0].run_id) == {}


@pytest.mark.parametrize(
    "event",
    [
        Event("a/other"),
        Event("a/b", ts=1_700_000_000_000),
        Event("a/b", ts=4_000_000_000_000),
        Event("a/b", id="x" * 255, ts=4_000_000_000_000),
        Event("a/b", id="ü" * 200),  # whose length needs two bytes
    ],
    ids=["unknown", "past", "future", "future with an id", "long id"],
)
async def test_what_is_not_simple_is_left(ready: Shard, event: Event) -> None:
    before, odd, behind = await accept(ready, Event("a/b"), event, Event("a/b"))
    done = await arrive(ready, listed("a/b"))
    assert done.entries == {before.sid}
    left = [odd.sid, behind.sid]
    assert [entry for entry, _ in await ready.entries()] == left, "in their order"
    assert (await ready.do("XPENDING", "events", GROUP))[0] == 2


ENTRY = {
    "k": "u",
    "i": "0" * 26,
    "n": "a/b",
    "t": "1700000000000000",
    "d": b"\x96\xa3a/b\xc0\x00",
    "x": "",
}


@pytest.mark.parametrize(
    "change",
    [
        {"i": "?" * 26},
        {"i": "0" * 25},
        {"t": "soon"},
        {"t": ""},
        {"d": ""},
        {"d": None},
        {"k": "?"},
    ],
    ids=str,
)
async def test_what_can_not_be_read_is_left_before_anything_is_written(
    ready: Shard, change: dict[str, str | None]
) -> None:
    (good,) = await accept(ready, Event("a/b"))
    pairs = [pair for pair in {**ENTRY, **change}.items() if pair[1] is not None]
    flat: list[Any] = [value for pair in pairs for value in pair]
    await ready.do("XADD", "events", "*", *flat)
    key = ready.keys.events
    args = ("GROUP", GROUP, ME, "COUNT", 100, "STREAMS", key, ">")
    await ready.server.call(key, "XREADGROUP", *args)
    assert (await arrive(ready, listed("a/b"))).entries == {good.sid}
    assert len(await ready.lease(100, lanes=("app", "größe"))) == 3
    await ready.do("DEL", "events")


async def test_invokes_and_other_registries_and_crowds_are_left(ready: Shard) -> None:
    await accept(ready, Event("a/b"), kind="v")
    assert await arrive(ready, listed("a/b")) == Arrived(set(), {})
    await accept(ready, Event("a/b"))
    assert await arrive(ready, listed("a/b"), b"2") == Arrived(set(), {})
    await accept(ready, *[Event("a/b")] * (MOST - 1))
    assert await arrive(ready, listed("a/b")) == Arrived(set(), {})
    assert len(await ready.entries()) == MOST + 1


async def test_anothers_deliveries_are_left(ready: Shard) -> None:
    await accept(ready, Event("a/b"), consumer="c-2")
    assert await arrive(ready, listed("a/b")) == Arrived(set(), {})


async def test_what_is_waited_for_is_left(ready: Shard) -> None:
    item = await ready.leased(lane="app")
    await ready.commit(item, "S", ops=wait("go", "a/b"))
    other, waited = await accept(ready, Event("a/c"), Event("a/b"))
    done = await arrive(ready, listed("a/b", "a/c"))
    assert done.entries == {other.sid}
    assert waited.sid in [entry for entry, _ in await ready.entries()]
    assert (await ready.kinds())[0] == "u a/b"


async def test_what_the_coordinator_knows_of_is_left(ready: Shard) -> None:
    *_, known = await accept(ready, *[Event("a/b")] * (MOST + 1))
    await ready.do("XCLAIM", "events", GROUP, ME, 0, known.sid, "TIME", 1, "JUSTID")
    (new,) = await accept(ready, Event("a/b"))
    assert (await arrive(ready, listed("a/b"), after=known.sid)).entries == {new.sid}
    rows = await ready.do("XPENDING", "events", GROUP, "-", "+", 10, ME)
    assert len(rows) == MOST + 1
    assert rows[-1][2] > 60_000, "what is pending is not made young, and is claimed in time"


names = st.text(min_size=1, max_size=512).filter(
    lambda n: not n.startswith(("inngest/", "stepwell/"))
)
events = st.builds(
    Event,
    name=names | st.sampled_from(["n" * 31, "n" * 32, "n" * 255, "n" * 256, "ü" * 16]),
    data=st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3),
    id=st.just("") | st.text(max_size=255) | st.sampled_from(["i" * 31, "i" * 32]),
    ts=st.just(0) | st.integers(1_000_000_000_000, 4_000_000_000_000),
    v=st.none() | st.just("2"),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(events, min_size=1, max_size=MOST))
async def test_ids_names_and_times_of_all_kinds(ready: Shard, some: list[Event]) -> None:
    entries = await accept(ready, *some)
    done = await arrive(ready, listed(*{event.name for event in some}))
    odd = [bool(event.ts) or len(event.id.encode()) > 255 for event in some]
    handled = entries[: odd.index(True) if True in odd else None]
    assert done.entries == {entry.sid for entry in handled}
    await assert_created(ready, handled)
    for entry in entries:
        if entry not in handled:
            await ready.do("XACK", "events", GROUP, entry.sid)
            await ready.do("XDEL", "events", entry.sid)
