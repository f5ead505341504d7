"""Events for tests of flow control, and what they came to."""

from collections import Counter
from typing import Any

from stepwell.events import Event
from stepwell.records import EventOutcome, Run, RunStatus
from stepwell.testing.engine import Engine
from stepwell.triggers import TriggerEvent

EVENT = "shop/order"
GO = TriggerEvent(EVENT)
TENANT = "event.data.tenant"


def order(n: int, **more: Any) -> Event:
    """The n-th order."""
    return Event(EVENT, {"n": n, **more})


def orders(count: int, **more: Any) -> list[Event]:
    """So many, from the 0th on."""
    return [order(n, **more) for n in range(count)]


async def handled(engine: Engine, event_ids: list[str]) -> None:
    """All events have become runs, which may still wait."""
    for event_id in event_ids:
        await engine.event(event_id)


async def outcomes(engine: Engine, event_ids: list[str]) -> list[EventOutcome]:
    """The outcome of each event that one function wants."""
    records = [await engine.event(event_id) for event_id in event_ids]
    return [record.outcomes[0] for record in records]


async def completed(engine: Engine, event_ids: list[str]) -> list[Run]:
    """The run of each event that one function wants; all complete."""
    runs = [await engine.wait(event_id, timeout=30) for event_id in event_ids]
    assert {run.status for run in runs} == {RunStatus.COMPLETED}
    return runs


async def all_completed(engine: Engine, count: int) -> None:
    """So many runs there are, and all complete."""
    await engine.settle(patience=30)
    assert Counter(run.status for run in await engine.runs()) == {RunStatus.COMPLETED: count}
