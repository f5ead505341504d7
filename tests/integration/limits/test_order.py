"""Order: within a queue runs start as their events were sent, also those of one `send`, which share their millisecond; and of a
singleton's runs the newest goes on, in whatever order the shards' events are handled.
"""

import pytest

from stepwell import Client, Context, Event, Singleton, TriggerEvent
from stepwell.records import RunStatus
from stepwell.testing import Engine

pytestmark = pytest.mark.anyio

COUNT = 200


@pytest.mark.parametrize("limit", [1, 0])
async def test_what_was_sent_first_starts_first(limit: int) -> None:
    client = Client(app_id="shop")
    begun: list[int] = []

    @client.create_function(
        fn_id="in-order", trigger=TriggerEvent(event="shop/go"), concurrency=limit
    )
    async def in_order(ctx: Context) -> None:
        begun.append(ctx.event.data["number"])

    async with Engine([client]) as engine:
        await client.send(
            [Event(name="shop/go", data={"number": number}) for number in range(COUNT)]
        )
        await engine.settle()
    assert begun == list(range(COUNT))


USERS, EACH = "abcd", 6


async def backlog(engine: Engine) -> list[str]:
    """Events of each user, one after the other, that lie in all shards when a coordinator comes; their ids."""
    await engine.stop_coordinator()
    ids: list[str] = []
    for n in range(EACH):
        for user in USERS:
            ids += await engine.send(Event("shop/go", {"user": user, "n": n}, id=f"{user}{n}"))
    await engine.start_coordinator()
    await engine.settle()
    return ids


async def test_the_newest_of_a_singleton_goes_on(client, stepwell_engine) -> None:
    """Those before it began and were cancelled, or are as if they had been."""

    @client.create_function(
        fn_id="f",
        trigger=TriggerEvent("shop/go"),
        singleton=Singleton(mode="cancel", key="event.data.user"),
    )
    async def f(ctx: Context) -> None:
        await ctx.step.sleep("nap", "1h")

    async with stepwell_engine(client) as engine:
        ids = await backlog(engine)
        for event_id in ids[: -len(USERS)]:
            run = await engine.wait(event_id)
            assert run.status is RunStatus.CANCELLED
            assert run.error.message == "a newer run of its singleton key began"
        await engine.advance("61m")
        newest = [await engine.wait(event_id) for event_id in ids[-len(USERS) :]]
        assert [run.status for run in newest] == [RunStatus.COMPLETED] * len(USERS)


async def test_an_older_run_does_not_begin_after_a_newer_one_that_has_ended(
    client, stepwell_engine
) -> None:
    begun: dict[str, list[int]] = {user: [] for user in USERS}

    @client.create_function(
        fn_id="f",
        trigger=TriggerEvent("shop/go"),
        singleton=Singleton(mode="cancel", key="event.data.user"),
    )
    async def f(ctx: Context) -> None:
        begun[ctx.event.data["user"]].append(ctx.event.data["n"])

    async with stepwell_engine(client) as engine:
        await backlog(engine)
        for numbers in begun.values():
            assert numbers == sorted(numbers)
            assert numbers[-1] == EACH - 1


async def test_the_newest_of_a_singleton_after_the_clock_went_back(client, stepwell_engine) -> None:
    @client.create_function(
        fn_id="f", trigger=TriggerEvent("shop/go"), singleton=Singleton(mode="cancel")
    )
    async def f(ctx: Context) -> None:
        await ctx.step.sleep("nap", "2h")

    async with stepwell_engine(client) as engine:
        (older,) = await engine.send(Event("shop/go"))
        await engine.settle()
        engine.clock.offset_ms -= 3_600_000
        (newer,) = await engine.send(Event("shop/go"))
        await engine.settle()
        assert (await engine.wait(older)).status is RunStatus.CANCELLED
        await engine.advance("121m")
        assert (await engine.wait(newer)).status is RunStatus.COMPLETED
