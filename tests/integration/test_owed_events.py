"""Events with an id that a step sends: the shard that de-duplicates them is often not the run's."""

import pytest

from stepwell import Event, TriggerEvent
from tests.support.runs import run_of

pytestmark = pytest.mark.anyio


async def test_a_duplicate_tells_of_the_first_wherever_it_was_found(client, stepwell_engine):
    heard: list[int] = []

    @client.create_function(fn_id="sender", trigger=TriggerEvent("t/go"))
    async def sender(ctx):
        return await ctx.step.send_event(
            "send", [Event("t/news", {"n": n}, id=f"news-{n}") for n in range(16)]
        )

    @client.create_function(fn_id="news", trigger=TriggerEvent("t/news"))
    async def news(ctx):
        heard.append(ctx.event.data["n"])

    async with stepwell_engine(client) as engine:
        firsts = await engine.send([Event("t/news", {"n": n}, id=f"news-{n}") for n in range(8)])
        await engine.settle()
        sent = (await run_of(engine, "t/go")).output
        await engine.settle()
        assert sorted(heard) == list(range(16))
        for n, event_id in enumerate(sent):
            record = await engine.client.get_event(event_id)
            assert record is not None
            if n < 8:
                assert record.duplicate_of == firsts[n]
                assert record.outcomes == ()
            else:
                assert record.duplicate_of is None
                assert [outcome.outcome for outcome in record.outcomes] == ["started"]
