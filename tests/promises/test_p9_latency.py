"""P9: nothing ready waits for a poll, and idle processes cost next to nothing.

No test here measures how fast this machine is. Every period of every process is made an hour: what happens at all, happens
because somebody was told. And an idle system is judged by what it asks of the server and how often it wakes.
"""

import asyncio
from collections import Counter
from time import monotonic
from typing import Any, Self

import pytest
from redis import Redis

from stepwell.errors import RetryAfterError
from stepwell.events import Event
from stepwell.records import RunStatus
from stepwell.triggers import TriggerEvent
from stepwell_engine import timers, watcher
from stepwell_engine.coordinator import Coordinator, Settings
from stepwell_workers import fetch

pytestmark = pytest.mark.anyio

_HOUR = 3600


@pytest.fixture
def patient(monkeypatch):
    """Blocking calls and looks at timers last an hour, unless somebody is told something."""
    monkeypatch.setattr(fetch, "BLOCK", float(_HOUR))
    monkeypatch.setattr(timers, "HORIZON_MS", _HOUR * 1000)
    monkeypatch.setattr(watcher, "_BLOCK_S", _HOUR)


async def make_patient(engine):
    """Replace the engine's coordinator, whose own periods are settings."""
    await engine.stop_coordinator()
    settings = Settings(
        block_ms=_HOUR * 1000, claim_ms=_HOUR * 1000, sweep_every_ms=_HOUR * 1000,
        sample_every_ms=_HOUR * 1000,
    )  # fmt: skip
    coordinator = Coordinator(engine.store, retention="366d", settings=settings)
    await coordinator.start()
    engine._coordinators.append(coordinator)


async def ended(engine, event_id):
    return await engine.client.wait_for_run((await engine.event(event_id)).run_ids[0])


async def test_every_hop_is_told_to_whom_it_concerns(client, stepwell_engine, patient):
    tried: list[int] = []

    async def flaky():
        tried.append(1)
        if len(tried) == 1:
            raise RetryAfterError("again", 1_000)

    @client.create_function(fn_id="child")
    async def child(ctx):
        await ctx.step.sleep("nap", 5)
        return "from the child"

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        told = [await ctx.step.invoke("child", function=child)]
        await ctx.step.sleep("nap", 5)
        await ctx.step.run("flaky", flaky)
        await ctx.step.send_event("tell", Event("t/other", {"n": 1}))
        found = await ctx.step.wait_for_event("answer", event="t/answer", timeout="1h")
        told.append(found and found.name)
        told.append(await ctx.step.wait_for_event("none", event="t/none", timeout=20))
        first = await ctx.group.race(
            lambda: ctx.step.sleep("short", 5), lambda: ctx.step.sleep("long", "1h")
        )
        return [*told, first]

    @client.create_function(fn_id="other", trigger=TriggerEvent("t/other"))
    async def other(ctx):
        await asyncio.sleep(0.1)  # until `f` waits
        await ctx.step.send_event("answer", Event("t/answer"))

    async with stepwell_engine(client) as engine:
        await make_patient(engine)
        async with asyncio.timeout(60):
            [event_id] = await engine.send(Event("t/go"))
            run = await ended(engine, event_id)
    assert run.output == ["from the child", "t/answer", None, None]
    assert len(tried) == 2


async def test_each_event_starts_its_run_however_long_all_were_idle(
    client, stepwell_engine, patient
):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        return ctx.event.data["n"]

    async with stepwell_engine(client) as engine:
        await make_patient(engine)
        for n in range(20):
            async with asyncio.timeout(60):
                [event_id] = await engine.send(Event("t/go", {"n": n}))
                assert (await ended(engine, event_id)).output == n
            await engine.settle()


async def test_a_cancel_and_a_signal_are_told_at_once(client, stepwell_engine, patient):
    begun = asyncio.Event()

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        value = await ctx.step.wait_for_signal("signal", signal="s", timeout="1h")
        begun.set()
        await asyncio.Event().wait()
        return value

    async with stepwell_engine(client) as engine:
        await make_patient(engine)
        async with asyncio.timeout(60):
            [event_id] = await engine.send(Event("t/go"))
            [run_id] = (await engine.event(event_id)).run_ids
            await engine.settle()
            await engine.client.send_signal("s", 1)
            await begun.wait()
            await engine.client.cancel_run(run_id)
            run = await engine.client.wait_for_run(run_id)
    assert run.status is RunStatus.CANCELLED


_WINDOW = 6.0
_OFTEN = 1.0
"""Seconds: whatever is asked more often than that while nothing happens is a poll."""


def heard(url: str, seconds: float) -> Counter[str]:
    """What clients ask in that time, word for word up to 60 characters: without what scripts call themselves."""
    counts: Counter[str] = Counter()
    with (
        Redis.from_url(url, decode_responses=True, protocol=2) as redis,
        redis.monitor() as monitor,
    ):
        connection = monitor.connection
        assert connection is not None
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            if connection.can_read(timeout=left):
                told: Any = monitor.next_command()
                if told["client_type"] != "lua":
                    counts[told["command"][:60]] += 1
    return counts


class Wakes:
    """Counts how often an event loop wakes, by its selector."""

    def __init__(self, loop: Any) -> None:
        self.count = 0
        self._selector = loop._selector
        self._select = self._selector.select

    def __enter__(self) -> Self:
        def select(timeout=None):
            self.count += 1
            return self._select(timeout)

        self._selector.select = select
        return self

    def __exit__(self, *exc: object) -> None:
        del self._selector.select


async def test_idle_processes_ask_next_to_nothing_and_sleep(client, stepwell_engine, server_kind):
    if server_kind == "cluster":
        pytest.skip("MONITOR hears one node")

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")

    async with stepwell_engine(client) as engine:
        # Idle is not empty: a run sleeps, and one has ended.
        await engine.send(Event("t/go"))
        await engine.advance("2h")
        await engine.send(Event("t/go"))
        await engine.settle()
        with Wakes(asyncio.get_running_loop()) as wakes:
            asked = await asyncio.to_thread(heard, engine.url, _WINDOW)
    often = {command: count for command, count in asked.items() if count > _WINDOW / _OFTEN}
    assert not often, "asked again and again while nothing happens"
    # A coordinator and a worker: the goal is two commands a second for each.
    assert asked.total() <= 2 * 2 * _WINDOW, asked
    # Each command is sent and answered, and the processes tick once a second for themselves.
    assert wakes.count <= 4 * asked.total() + 4 * _WINDOW, asked
