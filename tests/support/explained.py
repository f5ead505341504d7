"""What tests of `explain` share: an event sent, its run, and why that is not running."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from stepwell import Client, Event, Explanation, TriggerEvent
from stepwell.errors import RunNotFoundError
from stepwell.testing.engine import Engine

GO = TriggerEvent("t/go")
START = datetime(2030, 1, 1, tzinfo=UTC)


async def start(
    engine: Engine, data: dict[str, Any] | None = None, name: str = "t/go", **more: Any
) -> str:
    """Send an event and let the engine come to rest; the event's id."""
    [event_id] = await engine.send(Event(name, data or {}, **more))
    await engine.settle()
    return event_id


async def run_id_of(engine: Engine, event_id: str) -> str:
    """The one run of an event."""
    [run] = (await engine.event(event_id)).run_ids
    return run


async def why(engine: Engine, event_id: str) -> Explanation:
    """The explanation of the one run of an event."""
    return await engine.client.explain(await run_id_of(engine, event_id))


async def found_when(client: Client, run_id: str, *reasons: str) -> Explanation:
    """The explanation once it is one of those."""
    async with asyncio.timeout(10):
        while True:
            found: Explanation | None = None
            try:
                found = await client.explain(run_id)
            except RunNotFoundError:
                pass
            if found is not None and found.reason in reasons:
                return found
            await asyncio.sleep(0.002)
