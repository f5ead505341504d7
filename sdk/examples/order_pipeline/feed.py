"""The world around the shop: sends the webhooks in their order, and waits for what comes of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from stepwell import Client, Event, Run
from stepwell.errors import RunNotFoundError, ServerError, StreamFullError
from stepwell.records import RunSummary

T = TypeVar("T")

_LOOK = 0.1
_AT_ONCE = 16


async def again(ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` gives, asked until the server is there. The events' ids make that safe."""
    while True:
        try:
            return await ask()
        except (ServerError, StreamFullError):
            await asyncio.sleep(_LOOK)


class Feed:
    """Sends events at `pace` seconds each; a parcel leaves when its order waits for it.

    feed = Feed(client, pace=0.05)
    await feed.send(events)
    """

    def __init__(self, client: Client, pace: float) -> None:
        self._client = client
        self._pace = pace
        self._event_of: dict[str, str] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self.sent = 0

    async def send(self, events: Iterable[Event]) -> None:
        """Send them all; returns when the last one was accepted."""
        last: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            for event in events:
                if event.name.startswith("shop/shipment."):
                    # What follows a dispatch in the file must follow it in the world.
                    order = event.data["order_id"]
                    last[order] = group.create_task(self._ship(order, event, last.get(order)))
                else:
                    await self._send(event)
                await asyncio.sleep(self._pace)

    async def _send(self, event: Event) -> None:
        ids = await again(lambda: self._client.send(event))
        self.sent += 1
        if event.name == "shop/order.created":
            self._event_of.setdefault(event.data["order_id"], ids[0])

    async def _ship(self, order: str, event: Event, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await after
        else:
            await self._wanted(order)
        await self._send(event)

    async def _wanted(self, order: str) -> None:
        # Looked at, not told: the warehouse is no part of the system.
        while not await self._awaited(order):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)

    async def _awaited(self, order: str) -> bool:
        """Whether the order's run waits for its parcel, or did."""
        event_id = self._event_of.get(order)
        if event_id is None:
            return False
        async with self._at_once:
            record = await again(lambda: self._client.get_event(event_id))
            if record is None or not record.run_ids:
                return False
            run_id = record.run_ids[0]
            try:
                run = await again(lambda: self._client.get_run(run_id))
            except RunNotFoundError:
                return False  # planned, and not created yet
        return run.status.ended or any(step.op == "wait" for step in run.steps)


async def all_runs(client: Client) -> list[RunSummary]:
    """Every run of the app, newest first."""
    found: list[RunSummary] = []
    cursor: str | None = None
    while True:
        ask = partial(client.list_runs, app_id="shop", limit=500, cursor=cursor)
        page = await again(ask)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            return found


async def details(client: Client, runs: Iterable[RunSummary]) -> list[Run]:
    """The runs, whole."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(run_id: str) -> Run:
        async with gate:
            return await again(lambda: client.get_run(run_id))

    return await asyncio.gather(*(one(run.id) for run in runs))
