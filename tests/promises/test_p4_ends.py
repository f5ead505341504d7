"""P4: every run reaches an end; one that kills its workers is failed after a bounded number of crashes."""

import asyncio
import threading
from collections import Counter

import pytest

from stepwell.errors import NonRetriableError
from stepwell.events import Event
from stepwell.records import RunStatus, StepStatus
from stepwell.testing.engine import EngineError
from stepwell.triggers import TriggerEvent
from tests.support.runs import run_of, until

pytestmark = pytest.mark.anyio


async def test_a_run_that_kills_its_workers_is_failed_naming_the_step(client, stepwell_engine):
    entered: Counter[str] = Counter()

    async def deadly():
        entered["deadly"] += 1
        await asyncio.Event().wait()

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), max_crashes=3)
    async def f(ctx):
        await ctx.step.run("harmless", lambda: 1)
        await ctx.step.run("deadly", deadly)

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        for crash in range(1, 8):
            await until(lambda: entered["deadly"] == crash)  # noqa: B023 - awaited in this turn
            await engine.kill_worker()
            await engine.advance("1m")
            [run] = await engine.runs("f")
            if run.status.ended:
                break
            await engine.start_worker()
        assert run.status is RunStatus.FAILED
        assert entered["deadly"] == 4  # the crash that made it a suspect, and three more
        assert run.crashes == 3
        assert run.error is not None
        assert run.error.name == "WorkerLostError"
        assert "'deadly'" in run.error.message
        assert (await engine.wait(event_id)).status is RunStatus.FAILED


async def test_the_neighbours_of_a_run_that_kills_its_worker_complete(client, stepwell_engine):
    deadly_seen: list[int] = []

    async def work(n):
        if n == 3:
            deadly_seen.append(n)
            await asyncio.Event().wait()
        return n

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        await ctx.step.sleep("together", "1s")
        return await ctx.step.run("work", work, ctx.event.data["n"])

    async with stepwell_engine(client) as engine:
        ids = await engine.send([Event("t/go", {"n": n}) for n in range(20)])
        for crash in range(1, 8):
            if crash == 1:
                await engine.settle()
                engine.clock.offset_ms += 2_000
                engine.coordinator.poke()
            await until(lambda: len(deadly_seen) == crash)  # noqa: B023 - awaited in this turn
            await engine.kill_worker()
            await engine.advance("1m")
            if any(run.status is RunStatus.FAILED for run in await engine.runs()):
                break
            await engine.start_worker()
        await engine.restart_worker()
        runs = [await engine.wait(event_id) for event_id in ids]
        failed = [n for n, run in enumerate(runs) if run.status is not RunStatus.COMPLETED]
        assert failed == [3]
        assert [run.output for run in runs if run.output is not None] == [
            n for n in range(20) if n != 3
        ]


async def test_a_crash_count_falls_to_zero_when_a_step_is_recorded(client, stepwell_engine):
    entered: Counter[str] = Counter()
    go_on = asyncio.Event()

    async def part(name):
        entered[name] += 1
        if entered[name] <= 2:
            await asyncio.Event().wait()
        return name

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), max_crashes=2)
    async def f(ctx):
        return [await ctx.step.run(f"part {n}", part, f"part {n}") for n in range(3)]

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        for n in range(3):
            for crash in (1, 2):
                await until(lambda: entered[f"part {n}"] == crash)  # noqa: B023 - awaited in this turn
                await engine.kill_worker()
                await engine.advance("1m")
                await engine.start_worker()
        run = await engine.wait(event_id)
        assert run.output == ["part 0", "part 1", "part 2"]
        go_on.set()


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()]
)
async def test_code_that_raises_what_is_no_exception_ends_in_failure(
    client, stepwell_engine, error
):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), retries=0)
    async def f(ctx):
        raise error

    @client.create_function(fn_id="g", trigger=TriggerEvent("t/go2"))
    async def g(ctx):
        return "alive"

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
        assert run.status is RunStatus.FAILED
        assert (await run_of(engine, "t/go2")).output == "alive"


async def test_code_that_raises_system_exit_in_a_step_ends_in_failure(client, stepwell_engine):
    def leave():
        raise SystemExit(1)

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), retries=0)
    async def f(ctx):
        await ctx.step.run("leave", leave)

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1h")
        assert run.status is RunStatus.FAILED


async def test_a_run_that_waits_for_what_is_no_step_stays_in_memory_until_it_is_cancelled(
    client, stepwell_engine
):
    """What is no step may end at any moment, for all that Stepwell can see: the run is kept, its other branches go on."""
    entered: list[int] = []
    stopped: list[str] = []
    went_on = asyncio.Event()

    async def never():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append("never")
            raise

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"), retries=0)
    async def f(ctx):
        entered.append(1)

        async def branch():
            await ctx.step.sleep("nap", "5s")
            await ctx.step.run("after the nap", lambda: "went on")
            went_on.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(branch())
            group.create_task(never())

    async with stepwell_engine(client) as engine:
        [event_id] = await engine.send(Event("t/go"))
        [run_id] = (await engine.event(event_id)).run_ids
        held = f"leased: {run_id} by {engine.worker.worker_id}"
        with pytest.raises(EngineError, match=f"not at rest after 500ms.*{held}"):
            await engine.settle(patience=0.5)
        # Less than a lease: the worker lives, and keeps the run.
        engine.clock.offset_ms += 5_001
        engine.coordinator.poke()
        async with asyncio.timeout(10):
            await went_on.wait()
        run = await engine.run(run_id)
        assert run.status is RunStatus.RUNNING
        assert [s.status for s in run.steps] == [StepStatus.COMPLETED] * 2
        assert await engine.client.cancel_run(run_id) is RunStatus.CANCELLING
        assert (await engine.wait(run_id)).status is RunStatus.CANCELLED
        assert (entered, stopped) == ([1], ["never"])


async def test_attempts_are_bounded(client, stepwell_engine):
    tried: list[int] = []

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        tried.append(ctx.attempt)
        raise RuntimeError("always")

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go", after="1d")
        assert run.status is RunStatus.FAILED
        assert tried == [0, 1, 2, 3, 4]
        assert run.error.message == "always"
        assert run.error.name == "RuntimeError"


async def test_a_failed_run_is_not_touched_again(client, stepwell_engine):
    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        await ctx.step.run("a", lambda: 1)
        raise NonRetriableError("no")

    async with stepwell_engine(client) as engine:
        run = await run_of(engine, "t/go")
        assert run.status is RunStatus.FAILED
        assert await engine.client.cancel_run(run.id) is RunStatus.FAILED
        await engine.advance("30d")
        assert await engine.run(run.id) == run


async def test_a_sync_handler_cut_off_by_a_crash_completes(client, stepwell_engine):
    release, entered = threading.Event(), []

    @client.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    def f(ctx):
        def slow():
            entered.append(1)
            if len(entered) == 1:
                release.wait(20)
            return len(entered)

        return ctx.step.run("slow", slow)

    async with stepwell_engine(client) as engine:
        try:
            [event_id] = await engine.send(Event("t/go"))
            await until(lambda: entered)
            await engine.kill_worker()
            await engine.start_worker()
            await engine.advance("1m")
            assert (await engine.wait(event_id)).output == 2
        finally:
            release.set()
