"""A long run hands its slot over between steps once `max_runtime` is over, so that other keys get their turn (semantics §4, §6).

Of its own key only runs that began before it could: resumes go before starts.
"""

import asyncio

import pytest

from stepwell import Checkpointing, Client, Concurrency, Context, Event, TriggerEvent
from stepwell.testing import Engine

pytestmark = pytest.mark.anyio


async def test_a_long_run_yields_its_slot() -> None:
    client = Client(app_id="shop")
    order: list[str] = []

    @client.create_function(
        fn_id="long",
        trigger=TriggerEvent(event="shop/go"),
        concurrency=[Concurrency(limit=1), Concurrency(limit=1, key="event.data.name")],
        checkpointing=Checkpointing(max_runtime="1ms"),
    )
    async def long(ctx: Context) -> None:
        name: str = ctx.event.data["name"]

        async def work(step: int) -> None:
            order.append(f"{name}{step}")
            await asyncio.sleep(0.005)  # real time passes in a step: it is what is measured

        for step in range(3):
            await ctx.step.run(f"work-{step}", work, step)

    async with Engine([client]) as engine:
        await client.send(
            [Event(name="shop/go", data={"name": "a"}), Event(name="shop/go", data={"name": "b"})]
        )
        await engine.settle()
        runs = await engine.runs(fn_id="long")
        assert {run.status.value for run in runs} == {"completed"}
    assert sorted(order) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    first = order[0][0]
    assert [step[0] for step in order] != [first] * 3 + [order[-1][0]] * 3
