"""Short forms for scenario tests: send, let time pass, look at the run."""

import asyncio
from collections.abc import Callable
from typing import Any

from stepwell.durations import Duration
from stepwell.events import Event
from stepwell.records import Run, StepRecord
from stepwell.testing.engine import Engine


async def run_of(engine: Engine, event: Event | str, *, after: Duration | None = None) -> Run:
    """Send an event, let `after` pass on the engine's clock, and return the ended run."""
    [event_id] = await engine.send(Event(event) if isinstance(event, str) else event)
    await engine.settle()
    if after is not None:
        await engine.advance(after)
    return await engine.wait(event_id)


def step(run: Run, step_id: str) -> StepRecord:
    """The one step of that id."""
    [found] = [record for record in run.steps if record.id == step_id]
    return found


async def until(true: Callable[[], Any], *, patience: float = 10.0) -> None:
    """Give the loop turns until `true()`: for what user code says by side effects."""
    async with asyncio.timeout(patience):
        while not true():  # noqa: ASYNC110 - user code under test has nothing to set
            await asyncio.sleep(0.002)
