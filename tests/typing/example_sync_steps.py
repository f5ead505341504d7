# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""What the steps of a synchronous function give: checked by mypy and pyright, never run."""

from typing import Any, assert_type

import stepwell

client = stepwell.Client(app_id="shop")


@client.create_function(fn_id="invoice")
def make_invoice(ctx: stepwell.ContextSync) -> float:
    return len(ctx.run_id) / 2


def total(prices: list[int]) -> int:
    return sum(prices)


@client.create_function(fn_id="all")
def steps(ctx: stepwell.ContextSync) -> None:
    step = ctx.step
    assert_type(step.run("sync", total, [1, 2]), int)
    assert_type(step.run("lambda", lambda: "x"), str)
    step.sleep("nap", "1h")
    paid = step.wait_for_event("paid", event="shop/order.paid", timeout="2d")
    assert_type(paid, stepwell.Event | None)
    assert_type(step.wait_for_signal("go", signal="go", timeout="7d"), Any)
    assert_type(step.send_event("one", stepwell.Event(name="shop/x")), list[str])
    assert_type(step.send_signal("signal", signal="go"), str | None)
    assert_type(step.invoke("known", function=make_invoice), float)
    other = stepwell.reference_function(app_id="billing", function_id="invoice")
    assert_type(step.invoke("reference", function=other), Any)
    assert_type(step.invoke_by_id("id", function_id="invoice"), Any)
    assert_type(
        ctx.group.parallel((lambda: step.run("a", total, [1]), lambda: step.run("b", total, [2]))),
        tuple[int, ...],
    )
    assert_type(ctx.group.race(lambda: step.run("x", total, [1])), int)


def what_is_wrong(ctx: stepwell.ContextSync) -> None:
    ctx.step.run("wrong type", total, "prices")  # type: ignore[arg-type]
    ctx.step.invoke("f", function=total)  # type: ignore[call-overload]
