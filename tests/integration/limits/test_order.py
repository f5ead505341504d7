"""Within a queue runs start in the order in which their events were sent, also those of one `send`, which share their millisecond."""

import pytest

from stepwell import Client, Context, Event, TriggerEvent
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
