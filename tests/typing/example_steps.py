# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""What the steps of an asynchronous function give: checked by mypy and pyright, never run."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import stepwell

client = stepwell.Client(app_id="shop")


@client.create_function(fn_id="invoice")
async def make_invoice(ctx: stepwell.Context) -> float:
    return len(ctx.run_id) / 2


async def charge(order: int, currency: str) -> bytes:
    return f"{order} {currency}".encode()


def total(prices: list[int]) -> int:
    return sum(prices)


def first(prices: list[int], default: int = 0) -> int:
    return prices[0] if prices else default


@client.create_function(fn_id="run")
async def runs(ctx: stepwell.Context) -> None:
    step = ctx.step
    assert_type(await step.run("async", charge, 7, "EUR"), bytes)
    assert_type(await step.run("sync", total, [1, 2]), int)
    assert_type(await step.run("default", first, [1, 2]), int)
    assert_type(await step.run("lambda", lambda: 5), int)
    assert_type(await step.run("lambda async", lambda: charge(7, "EUR")), bytes)
    assert_type(await step.run("method", ctx.run_id.upper), str)
    assert_type(await step.run("typed", total, [1], output_type=int), int)

    async def local() -> dict[str, int]:
        return {"n": 1}

    assert_type(await step.run("local", local), dict[str, int])


@client.create_function(fn_id="wait")
async def waits(ctx: stepwell.Context) -> None:
    step = ctx.step
    await step.sleep("string", "1h30m")
    await step.sleep("delta", timedelta(days=1))
    await step.sleep("ms", 500)
    await step.sleep_until("moment", datetime(2030, 1, 1, tzinfo=UTC))
    await step.sleep_until("iso", "2030-01-01T00:00:00Z")
    paid = await step.wait_for_event(
        "paid", event="shop/order.paid", match="data.id", timeout="2d", lookback=True
    )
    assert_type(paid, stepwell.Event | None)
    assert_type(await step.wait_for_signal("go", signal="go", timeout="7d"), Any)
    assert_type(await step.send_event("one", stepwell.Event(name="shop/x")), list[str])
    assert_type(await step.send_event("many", [stepwell.Event(name="shop/x")]), list[str])
    assert_type(await step.send_signal("signal", signal="go", data={"by": "mia"}), str | None)


@client.create_function(fn_id="invoke")
async def invokes(ctx: stepwell.Context) -> None:
    step = ctx.step
    assert_type(await step.invoke("known", function=make_invoice, data={"order": 7}), float)
    other = stepwell.reference_function(app_id="billing", function_id="invoice")
    assert_type(await step.invoke("reference", function=other, cancel_child=True), Any)
    assert_type(await step.invoke_by_id("id", function_id="invoice", timeout="1h"), Any)


@client.create_function(fn_id="group")
async def groups(ctx: stepwell.Context) -> None:
    step, group = ctx.step, ctx.group
    same = await group.parallel(
        (lambda: step.run("a", total, [1]), lambda: step.run("b", total, [2]))
    )
    assert_type(same, tuple[int, ...])
    many = await group.parallel(tuple(lambda: step.run("n", total, [1]) for _ in range(3)))
    assert_type(many, tuple[int, ...])
    modes = stepwell.ParallelMode
    await group.parallel((lambda: step.sleep("s", "1s"),), parallel_mode=modes.RACE)
    won = await group.race(lambda: step.run("x", total, [1]), lambda: step.run("y", total, [2]))
    assert_type(won, int)


async def what_is_wrong(ctx: stepwell.Context) -> None:
    step = ctx.step
    await step.run("too few", charge, 7)  # type: ignore[arg-type]
    await step.run("wrong type", total, "prices")  # type: ignore[arg-type]
    await step.sleep("float", 1.5)  # type: ignore[arg-type]
    await step.wait_for_event("w", event="shop/x")  # type: ignore[call-arg]
    await step.invoke("f", function=total)  # type: ignore[call-overload]
