# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""What `create_function` makes of a handler: checked by mypy and pyright, never run."""

from typing import Any, assert_type

from pydantic import BaseModel

import stepwell

client = stepwell.Client(app_id="shop")
trigger = stepwell.TriggerEvent(event="shop/order.created")


class Receipt(BaseModel):
    total: int


@client.create_function(fn_id="async", trigger=trigger, retries=2)
async def asynchronous(ctx: stepwell.Context) -> Receipt:
    assert_type(ctx.event, stepwell.Event)
    assert_type(ctx.events, list[stepwell.Event])
    assert_type(ctx.step, stepwell.Step)
    return Receipt(total=1)


@client.create_function(fn_id="sync", trigger=[trigger])
def synchronous(ctx: stepwell.ContextSync) -> int:
    assert_type(ctx.step, stepwell.StepSync)
    return 1


@client.create_function(fn_id="nothing")
async def nothing(ctx: stepwell.Context) -> None:
    ctx.logger.info(ctx.run_id)


@client.create_function(
    fn_id="all",
    trigger=trigger,
    retries=stepwell.Retries(attempts=3, backoff=stepwell.Backoff.constant("5s")),
    checkpointing=stepwell.Checkpointing(buffered_steps=20, max_interval="1s"),
    lookback=["shop/order.paid"],
    distribute=True,
)
async def with_options(ctx: stepwell.Context) -> list[str]:
    return [ctx.run_id]


async def notify(ctx: stepwell.Context) -> None:
    ctx.logger.error("failed")


@client.create_function(fn_id="watched", trigger=trigger, on_failure=notify)
async def watched(ctx: stepwell.Context) -> int:
    return ctx.attempt


assert_type(asynchronous, stepwell.Function[Receipt])
assert_type(synchronous, stepwell.Function[int])
assert_type(nothing, stepwell.Function[None])
assert_type(with_options, stepwell.Function[list[str]])
assert_type(watched, stepwell.Function[int])


async def callers() -> None:
    assert_type(await client.send(stepwell.Event(name="shop/x", data={"n": 1})), list[str])
    assert_type(await client.invoke(asynchronous, data={"order": 7}, timeout="30s"), Receipt)
    assert_type(await client.invoke(synchronous), int)
    assert_type(await client.invoke("shop-sync"), Any)
    run = await client.get_run("01J8ZQ4Y9V2D6N3X5K7M1C0B8A")
    assert_type(run, stepwell.Run)
    assert_type(run.status, stepwell.RunStatus)
    record = await client.get_event("01J8ZQ4Y9V2D6N3X5K7M1C0B8A")
    assert_type(record, stepwell.EventRecord | None)


def blocking_callers() -> None:
    assert_type(client.send_sync(stepwell.Event(name="shop/x")), list[str])
    assert_type(client.invoke_sync(asynchronous), Receipt)
    assert_type(client.get_run_sync("01J8ZQ4Y9V2D6N3X5K7M1C0B8A"), stepwell.Run)


def what_is_wrong() -> None:
    stepwell.TriggerEvent(event=5)  # type: ignore[arg-type]
    client.create_function(fn_id=5)  # type: ignore[arg-type]
    client.create_function()  # type: ignore[call-arg]
    stepwell.Checkpointing(buffered_steps="20")  # type: ignore[arg-type]
