"""P3: a worker that lost its lease can write nothing.

An old worker is held inside user code until another has its run. Then it tries one kind of write after the other, and the
whole namespace is compared, key by key, with what it was before.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import pytest

from stepwell.checkpointing import Checkpointing
from stepwell.errors import NonRetriableError
from stepwell.events import Event
from stepwell.records import RunStatus
from stepwell.testing.engine import Engine
from stepwell.triggers import TriggerEvent
from stepwell_workers.worker import Worker
from tests.support.runs import until
from tests.support.snapshot import changed, snapshot

pytestmark = pytest.mark.anyio


class Duel:
    """One run of `f` and two workers: the old one is held in its code until its rival has the run.

    The old one has a single place, and its heart beats too seldom for a test to see: it neither takes its own run again nor
    learns of its loss in any other way than by a write that is refused.
    """

    def __init__(
        self, engine: Engine, entered: list[int], gates: Sequence[threading.Event]
    ) -> None:
        self.engine = engine
        self.entered = entered
        self.gates = gates
        self.running: list[Worker] = []
        self.old = self._worker(concurrency=1, heartbeat_s=14.0)
        self.rival = self._worker(concurrency=5)

    def _worker(self, **settings: Any) -> Worker:
        engine = self.engine
        return Worker(
            engine.clients,
            url=engine.url,
            namespace=engine.namespace,
            shards=len(engine.store.shards),
            clock=engine.clock,
            **settings,
        )

    async def begin(self) -> str:
        """Let the old one take the run and lose it to its rival; the event's id."""
        await self.engine.stop_worker()
        await self._start(self.old)
        [event_id] = await self.engine.send(Event("t/go"))
        await until(lambda: len(self.entered) == 1)
        [run] = await self.engine.runs("f")
        self.engine.clock.offset_ms += 60_000
        self.engine.coordinator.poke()
        while run.status is not RunStatus.QUEUED:
            await asyncio.sleep(0.002)
            run = await self.engine.run(run.id)
        await self._start(self.rival)
        await until(lambda: len(self.entered) == 2)
        return event_id

    async def _start(self, worker: Worker) -> None:
        await worker.start()
        self.running.append(worker)

    async def stop(self, worker: Worker) -> None:
        self.running.remove(worker)
        await worker.stop()

    async def strike(self) -> list[bytes]:
        """Let the old worker write what it has to write; the keys that it changed."""
        before = await snapshot(self.engine.store)
        self.gates[0].set()
        await until(lambda: not self.old._entries)
        return changed(before, await snapshot(self.engine.store))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for gate in self.gates:
            gate.set()
        for worker in list(self.running):
            await self.stop(worker)


# --- what it tries to write ---


async def _a_step(ctx):
    await ctx.step.run("late", lambda: "late")


async def _a_failed_step(ctx):
    await ctx.step.run("late", _raise)


async def _a_retried_step(ctx):
    await ctx.step.run("late", _raise_retriable)


async def _a_sleep(ctx):
    await ctx.step.sleep("late", "1h")


async def _a_wait(ctx):
    await ctx.step.wait_for_event("late", event="t/x", timeout="1h")


async def _an_invoke(ctx):
    await ctx.step.invoke_by_id("late", app_id="shop", function_id="child", timeout="1h")


async def _events(ctx):
    await ctx.step.send_event("late", [Event("t/child"), Event("t/child", id="once")])


async def _branches(ctx):
    await asyncio.gather(
        ctx.step.run("late", lambda: 1),
        ctx.step.sleep("late too", "1h"),
        ctx.step.wait_for_event("late three", event="t/x", timeout="1h"),
    )


async def _a_race(ctx):
    await ctx.group.race(
        lambda: ctx.step.run("late", lambda: 1), lambda: ctx.step.sleep("late too", "1h")
    )


async def _a_signal(ctx):
    await ctx.step.wait_for_signal("late", signal="s", timeout="1h", on_conflict="replace")


async def _a_failure(ctx):
    raise NonRetriableError("late")


async def _a_retry(ctx):
    raise RuntimeError("late")


async def _a_return(ctx):
    return "late"


def _raise() -> None:
    raise NonRetriableError("late")


def _raise_retriable() -> None:
    raise RuntimeError("late")


_ENDS = (_a_return, _a_failure, _a_retry)
_WRITES: tuple[Callable[[Any], Awaitable[Any]], ...] = (
    _a_step, _a_failed_step, _a_retried_step, _a_sleep, _a_wait, _an_invoke, _events, _branches,
    _a_race, _a_signal, *_ENDS,
)  # fmt: skip


def _in_sync(write: Callable[[Any], Awaitable[Any]], ctx: Any) -> Any:
    """The same write by a sync handler: its steps return at once what an async one awaits."""

    class Step:
        def __getattr__(self, name):
            async def call(*args, **kwargs):
                return getattr(ctx.step, name)(*args, **kwargs)

            return call

    class Awaited:
        step = Step()

    coroutine: Any = write(Awaited())
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError(write)


def _function(
    client: Any, write: Any, kind: str, buffered: int = 1
) -> tuple[Any, list[int], list[int]]:
    """The function `f`: its first entry waits for a release, and writes; its second waits for another, and returns "ours"."""
    entered: list[int] = []
    late: list[int] = []
    gates = threading.Event(), threading.Event()

    async def handler(ctx):
        entered.append(1)
        mine = len(entered)
        gate = gates[0] if mine == 1 else gates[1]
        await until(gate.is_set, patience=30)
        if mine > 1:
            return "ours"
        output = await write(ctx)
        if write not in _ENDS:
            late.append(1)
        return output

    def handler_sync(ctx):
        entered.append(1)
        mine = len(entered)
        assert gates[0 if mine == 1 else 1].wait(30)
        if mine > 1:
            return "ours"
        output = _in_sync(write, ctx)
        if write not in _ENDS:
            late.append(1)
        return output

    client.create_function(
        fn_id="f",
        trigger=TriggerEvent("t/go"),
        checkpointing=Checkpointing(buffered_steps=buffered),
    )(handler if kind == "async" else handler_sync)
    client.create_function(fn_id="child", trigger=TriggerEvent("t/child"))(_a_return)
    return gates, entered, late


@pytest.mark.parametrize(
    ("kind", "write"),
    [("async", write) for write in _WRITES]
    + [("sync", write) for write in _WRITES if write not in (_branches, _a_race)],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_what_an_old_worker_tries_changes_no_key(client, stepwell_engine, kind, write):
    gates, entered, late = _function(client, write, kind)
    async with stepwell_engine(client) as engine, Duel(engine, entered, gates) as duel:
        event_id = await duel.begin()
        assert await duel.strike() == []
        assert late == [], "the old worker went on after a write that was refused"
        gates[1].set()
        run = await engine.wait(event_id)
        assert (run.status, run.output, run.steps) == (RunStatus.COMPLETED, "ours", ())
        assert run.attempts == ()
        await duel.stop(duel.rival)
        assert await engine.runs("child") == []


@pytest.mark.parametrize("write", [_a_return, _a_failure, _a_sleep], ids=lambda w: w.__name__)
async def test_nor_when_the_run_has_ended_meanwhile(client, stepwell_engine, write):
    gates, entered, _ = _function(client, write, "async")
    async with stepwell_engine(client) as engine, Duel(engine, entered, gates) as duel:
        event_id = await duel.begin()
        gates[1].set()
        run = await engine.wait(event_id)
        await duel.stop(duel.rival)
        await engine.settle()
        assert await duel.strike() == []
        assert await engine.run(run.id) == run


async def test_nor_what_it_had_buffered(client, stepwell_engine):
    async def steps(ctx):
        for n in range(3):
            await ctx.step.run(f"late {n}", lambda: 1)
        await ctx.step.sleep("late", "1h")

    gates, entered, _ = _function(client, steps, "async", buffered=10)
    async with stepwell_engine(client) as engine, Duel(engine, entered, gates) as duel:
        event_id = await duel.begin()
        assert await duel.strike() == []
        gates[1].set()
        assert (await engine.wait(event_id)).steps == ()
