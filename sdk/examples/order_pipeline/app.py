"""An order pipeline: parallel steps, a retried call, a sleep, an invoke, a wait, and what follows from them.

Waits and backoffs are short, so that the demo is; in a shop they would be hours.
"""

from typing import Any

from stepwell import (
    Backoff,
    Client,
    Context,
    ContextSync,
    Event,
    NonRetriableError,
    Retries,
    TriggerEvent,
)

client = Client(app_id="shop")

QUICK = Retries(attempts=4, backoff=Backoff.constant("300ms"))
SHIPPING_TIMEOUT = "12s"

Order = dict[str, Any]


class GatewayTimeoutError(Exception):
    """The payment gateway did not answer."""


def check_order(order: Order) -> int:
    """How many pieces were ordered."""
    if not order["items"]:
        raise NonRetriableError(f"order {order['order_id']} has no items")
    return sum(item["quantity"] for item in order["items"])


async def reserve_stock(order: Order) -> list[str]:
    """Set the goods aside."""
    return [f"{item['sku']}@shelf-{len(item['sku'])}" for item in order["items"]]


async def score_fraud(order: Order) -> float:
    """How suspicious the order is, from 0 to 1."""
    total: float = order["total"]
    return round(min(1.0, total / 1000), 3)


async def charge_card(order: Order, attempt: int) -> dict[str, Any]:
    """Take the money. A real gateway would get the run's id as its idempotency key."""
    token = order["payment"]["token"]
    if token == "tok_chargeDeclined":
        raise NonRetriableError(f"the card for order {order['order_id']} was declined")
    if token == "tok_gatewayTimeout" and attempt == 0:
        raise GatewayTimeoutError("no answer from the payment gateway within 10 s")
    return {"charge": f"ch_{order['order_id']}", "amount": order["total"]}


async def order_failed(ctx: Context) -> str:
    """Runs when a fulfilment has failed: its event tells of what and why."""
    order = ctx.event.data["event"]["data"]
    why = ctx.event.data["error"]["message"]
    return await ctx.step.run("tell-customer", lambda: f"{order['customer']['email']}: {why}")


@client.create_function(fn_id="make-invoice", retries=QUICK)
def make_invoice(ctx: ContextSync) -> str:
    """Started by `step.invoke` only; an ordinary function, in a thread."""
    order_id = ctx.event.data["order_id"]
    number = ctx.step.run("number", lambda: f"INV-{order_id[2:]}")
    return ctx.step.run("render", lambda: f"{number}.pdf")


@client.create_function(
    fn_id="fulfil-order",
    # Free samples go another way.
    trigger=TriggerEvent("shop/order.created", "event.data.total > 0"),
    retries=QUICK,
    on_failure=order_failed,
)
async def fulfil_order(ctx: Context) -> dict[str, Any]:
    """From an order to its delivery. Each step's result is remembered; the waits hold nothing."""
    order = ctx.event.data
    pieces = await ctx.step.run("check", check_order, order)
    shelves, risk = await ctx.group.parallel(
        (
            lambda: ctx.step.run("reserve-stock", reserve_stock, order),
            lambda: ctx.step.run("score-fraud", score_fraud, order),
        )
    )
    charge = await ctx.step.run("charge", lambda: charge_card(order, ctx.attempt))
    await ctx.step.sleep("time-to-cancel", "500ms")
    invoice = await ctx.step.invoke(
        "invoice", function=make_invoice, data={"order_id": order["order_id"]}
    )
    shipped = await ctx.step.wait_for_event(
        "shipped",
        event="shop/shipment.dispatched",
        match="data.order_id",
        timeout=SHIPPING_TIMEOUT,
    )
    if shipped is None:
        return {"order_id": order["order_id"], "late": True, "invoice": invoice}
    await ctx.step.send_event(
        "announce",
        Event("shop/order.fulfilled", {"customer": order["customer"], "total": order["total"]}),
    )
    return {
        "order_id": order["order_id"],
        "late": False,
        "pieces": pieces,
        "shelves": shelves,
        "risk": risk,
        "charge": charge["charge"],
        "invoice": invoice,
        "tracking": shipped.data["tracking_number"],
    }


@client.create_function(fn_id="award-points", trigger=TriggerEvent("shop/order.fulfilled"))
def award_points(ctx: ContextSync) -> int:
    """Started by what another function sent."""
    return ctx.step.run("add", lambda: int(ctx.event.data["total"]))


@client.create_function(fn_id="track-shipment", trigger=TriggerEvent("shop/shipment.*"))
async def track_shipment(ctx: Context) -> str:
    """Started by every event of a family."""
    news = ctx.event.name.rpartition(".")[2]
    return await ctx.step.run("note", lambda: f"{ctx.event.data['order_id']} {news}")
