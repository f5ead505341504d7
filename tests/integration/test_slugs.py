"""App `a-b` with `c` and app `a` with `b-c` share the slug `a-b-c`: what belongs to one must not reach the other."""

import pytest

from stepwell import Client, NonRetriableError, TriggerEvent
from tests.support.runs import run_of

pytestmark = pytest.mark.anyio


def failing(app_id: str, fn_id: str, told: list[str]) -> Client:
    """An app with a function that fails, and what it is told of that."""
    client = Client(app_id=app_id)

    async def on_failure(ctx):
        data = ctx.event.data
        told.append(
            f"{ctx.app_id}/{ctx.fn_id}: {data['app_id']}/{data['fn_id']} {data['function_id']}"
        )

    @client.create_function(
        fn_id=fn_id, trigger=TriggerEvent(f"{app_id}/go"), on_failure=on_failure
    )
    async def f(ctx):
        raise NonRetriableError("no")

    return client


async def test_on_failure_is_told_of_its_own_function_only(stepwell_engine):
    told: list[str] = []
    clients = [failing("a-b", "c", told), failing("a", "b-c", told)]
    async with stepwell_engine(clients) as engine:
        await run_of(engine, "a/go")
        await engine.settle()
        assert told == ["a/b-c-failure: a/b-c a-b-c"]
        await run_of(engine, "a-b/go")
        await engine.settle()
        assert told[1:] == ["a-b/c-failure: a-b/c a-b-c"]


@pytest.mark.parametrize("fn_id", ["it's", 'say "so"', "back\\slash", "über"])
async def test_on_failure_of_a_function_with_an_odd_id(stepwell_engine, fn_id):
    told: list[str] = []
    async with stepwell_engine([failing("a", fn_id, told)]) as engine:
        await run_of(engine, "a/go")
        await engine.settle()
        assert told == [f"a/{fn_id}-failure: a/{fn_id} a-{fn_id}"]
