"""Events for tests of flow control at run creation, and what they came to."""

from typing import Any

from stepwell.events import Event
from stepwell.records import EventOutcome
from stepwell.testing.engine import Engine

EVENT = "shop/order"


def order(n: int, **more: Any) -> Event:
    """The n-th order."""
    return Event(EVENT, {"n": n, **more})


async def outcomes(engine: Engine, event_ids: list[str]) -> list[EventOutcome]:
    """The outcome of each event that one function wants."""
    records = [await engine.event(event_id) for event_id in event_ids]
    return [record.outcomes[0] for record in records]
