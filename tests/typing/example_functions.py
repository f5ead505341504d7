# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""What `create_function` makes of a handler: checked by mypy and pyright, never run."""

from datetime import timedelta
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


@client.create_function(
    fn_id="flow",
    trigger=[trigger, stepwell.TriggerCron(cron="@daily", timezone="Europe/Paris", jitter="30s")],
    cancel=[stepwell.Cancel(event="shop/order.cancelled", match="data.id", timeout="2d")],
    concurrency=[
        stepwell.Concurrency(limit=5, key="event.data.customer", weight="event.data.weight"),
        stepwell.Concurrency(limit=50, key="'shop'", scope="env", level="run"),
    ],
    debounce=stepwell.Debounce(period="30s", timeout=timedelta(minutes=5), collect=True),
    idempotency="event.data.id",
    priority=stepwell.Priority(run="event.data.urgent ? 120 : 0"),
    rate_limit=stepwell.RateLimit(limit=10, period="1h", key="event.data.customer"),
    singleton=stepwell.Singleton(mode="skip", key="event.data.customer"),
    throttle=stepwell.Throttle(limit="event.data.rate", period=60_000, burst=10),
    timeouts=stepwell.Timeouts(start="10m", finish="2h"),
)
async def with_flow_control(ctx: stepwell.Context) -> int:
    return len(ctx.events)


batch = stepwell.Batch(max_size=100, timeout="5s", if_exp="event.data.total > 10")


@client.create_function(fn_id="batch", trigger=trigger, batch_events=batch, concurrency=5)
def batched(ctx: stepwell.ContextSync) -> int:
    return len(ctx.events)


@client.create_function(
    fn_id="one",
    trigger=stepwell.TriggerCron("0 9 * * *", catchup="all"),
    cancel=stepwell.Cancel("shop/closed"),
    concurrency=stepwell.Concurrency(1),
)
async def with_one_of_each(ctx: stepwell.Context) -> None: ...


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
assert_type(with_flow_control, stepwell.Function[int])
assert_type(batched, stepwell.Function[int])
assert_type(with_one_of_each, stepwell.Function[None])


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
    stepwell.Concurrency(limit=5.5)  # type: ignore[arg-type]
    stepwell.Concurrency(limit=5, scope="global")  # type: ignore[arg-type]
    stepwell.Throttle(limit=5)  # type: ignore[call-arg]
    stepwell.Singleton(mode="wait")  # type: ignore[arg-type]
    stepwell.TriggerCron(cron="@daily", catchup="some")  # type: ignore[arg-type]
    client.create_function(fn_id="a", throttle=stepwell.Debounce("1m"))  # type: ignore[arg-type]
    client.create_function(fn_id="a", concurrency="5")  # type: ignore[arg-type]
