"""`Checkpointing`: what is buffered is lost with its worker and runs again; what was flushed does not (semantics §4)."""

import asyncio
from collections import Counter
from functools import partial

import pytest

from stepwell import Checkpointing, Client, Event, TriggerEvent
from tests.support.runs import until

pytestmark = pytest.mark.anyio

GO = TriggerEvent("t/go")


class Work:
    """Steps that count how often they ran; "hang" never ends until it is released."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.released = False

    def quick(self, name: str) -> str:
        self.ran[name] += 1
        return name

    def heard(self, count: int) -> bool:
        return self.ran["heard"] == count

    async def hang(self) -> str:
        self.ran["hang"] += 1
        if not self.released:
            await asyncio.Event().wait()
        return "hang"


@pytest.fixture
def work() -> Work:
    return Work()


def function(client: Client, work: Work, checkpointing: Checkpointing) -> None:
    @client.create_function(fn_id="f", trigger=GO, checkpointing=checkpointing)
    async def f(ctx):
        done = [await ctx.step.run(name, work.quick, name) for name in ("a", "b", "c")]
        return [*done, await ctx.step.run("hang", work.hang)]


async def recorded(engine, count: int) -> list[str]:
    """Wait until that many steps of the one run are recorded; their ids."""
    async with asyncio.timeout(10):
        while True:
            runs = await engine.runs("f")
            steps = [step.id for run in runs for step in run.steps if step.ended_at]
            if len(steps) >= count:
                return steps
            await asyncio.sleep(0.005)


async def crash(engine, work: Work) -> None:
    """Lose the worker in the middle of "hang", and start another."""
    await engine.kill_worker()
    work.released = True
    await engine.start_worker()
    await engine.advance("1m")


async def test_unflushed_steps_run_again_after_a_crash(client, stepwell_engine, work):
    function(client, work, Checkpointing(buffered_steps=2))
    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await until(lambda: work.ran["hang"])
        assert await recorded(engine, 2) == ["a", "b"]
        await crash(engine, work)
        assert (await engine.wait(event_id)).output == ["a", "b", "c", "hang"]
        assert work.ran == {"a": 1, "b": 1, "c": 2, "hang": 2}


async def test_a_step_waits_for_others_no_longer_than_max_interval(client, stepwell_engine, work):
    function(client, work, Checkpointing(buffered_steps=100, max_interval=50))
    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await until(lambda: work.ran["hang"])
        # No step comes after these: the timer writes them.
        assert sorted(await recorded(engine, 3)) == ["a", "b", "c"]
        await crash(engine, work)
        assert (await engine.wait(event_id)).output == ["a", "b", "c", "hang"]
        assert work.ran == {"a": 1, "b": 1, "c": 1, "hang": 2}


async def test_a_sync_function_flushes_by_its_timer(client, stepwell_engine, work):
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    @client.create_function(
        fn_id="f", trigger=GO, checkpointing=Checkpointing(buffered_steps=100, max_interval=50)
    )
    def f(ctx):
        ctx.step.run("a", work.quick, "a")
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return ctx.step.run("b", work.quick, "b")

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        assert await recorded(engine, 1) == ["a"]
        release.set()
        assert (await engine.wait(event_id)).output == "b"


@pytest.mark.parametrize("way", ["sleep", "wait", "signal", "error"])
async def test_what_suspends_a_run_writes_its_buffer(client, stepwell_engine, work, way):
    @client.create_function(
        fn_id="f", trigger=GO, checkpointing=Checkpointing(buffered_steps=100), retries=1
    )
    async def f(ctx):
        await ctx.step.run("a", work.quick, "a")
        if way == "sleep":
            await ctx.step.sleep("s", "1h")
        elif way == "wait":
            await ctx.step.wait_for_event("s", event="t/none", timeout="1h")
        elif way == "signal":
            await ctx.step.wait_for_signal("s", signal="none", timeout="1h")
        else:
            work.ran["body"] += 1
            if work.ran["body"] == 1:
                raise ValueError("once")
        return await ctx.step.run("b", work.quick, "b")

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.kill_worker()
        await engine.start_worker()
        await engine.advance("2h")
        assert (await engine.wait(event_id)).output == "b"
        assert (work.ran["a"], work.ran["b"]) == (1, 1)


async def test_others_see_nothing_that_is_not_durable(client, stepwell_engine, work):
    """Events and signals leave after the steps before them are recorded."""

    @client.create_function(fn_id="f", trigger=GO, checkpointing=Checkpointing(buffered_steps=100))
    async def f(ctx):
        if ctx.event.data["by"] == "event":
            await ctx.step.run("a", work.quick, "a")
            await ctx.step.send_event("s", Event("t/news"))
        else:
            await ctx.step.run("a", work.quick, "a")
            await ctx.step.send_signal("s", signal="news", hold="1h")
        return await ctx.step.run("hang", work.hang)

    @client.create_function(fn_id="heard", trigger=TriggerEvent("t/news"))
    async def heard(ctx):
        work.ran["heard"] += 1

    @client.create_function(fn_id="listens", trigger=TriggerEvent("t/listen"))
    async def listens(ctx):
        await ctx.step.wait_for_signal("s", signal="news", timeout="1h")
        work.ran["heard"] += 1

    async with stepwell_engine(client) as engine:
        for turn, by in enumerate(("event", "signal"), 1):
            work.released = False
            await engine.send([Event("t/go", {"by": by}), Event("t/listen")])
            await until(partial(work.heard, turn))
            await crash(engine, work)
            assert work.ran["a"] == turn


async def test_a_deploy_writes_the_buffer(client, stepwell_engine, work):
    between = asyncio.Event()

    @client.create_function(fn_id="f", trigger=GO, checkpointing=Checkpointing(buffered_steps=100))
    async def f(ctx):
        await ctx.step.run("a", work.quick, "a")
        if not work.released:
            between.set()
            await asyncio.Event().wait()
        return await ctx.step.run("b", work.quick, "b")

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await between.wait()
        work.released = True
        await engine.restart_worker()
        assert (await engine.wait(event_id)).output == "b"
        assert work.ran == {"a": 1, "b": 1}


async def test_parallel_branches_share_the_buffer(client, stepwell_engine, work):
    @client.create_function(
        fn_id="f", trigger=GO, checkpointing=Checkpointing(buffered_steps=3, max_interval="1h")
    )
    async def f(ctx):
        async def branch(name):
            first = await ctx.step.run(f"{name}1", work.quick, f"{name}1")
            await ctx.step.sleep(f"nap {name}", "1m")
            return [first, await ctx.step.run(f"{name}2", work.quick, f"{name}2")]

        return await asyncio.gather(*(branch(name) for name in "pqrst"))

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.advance("2m")
        assert (await engine.wait(event_id)).output == [[f"{n}1", f"{n}2"] for n in "pqrst"]
        assert set(work.ran.values()) == {1}
        assert len(work.ran) == 10
