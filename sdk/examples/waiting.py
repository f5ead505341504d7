"""Finds a run that waits, to show what `explain` says of it."""

import asyncio
from collections.abc import Sequence

from stepwell import Explanation
from stepwell.errors import RunNotFoundError
from stepwell.testing import Engine


async def one_that_waits(engine: Engine, event_ids: Sequence[str], reason: str) -> Explanation:
    """The explanation of a run of one of the events that waits for that reason; looks until there is one."""
    while True:
        for event_id in event_ids:
            for run_id in (await engine.event(event_id)).run_ids:
                try:
                    found = await engine.client.explain(run_id)
                except RunNotFoundError:
                    continue  # planned, and not created yet
                if found.reason == reason:
                    return found
        await asyncio.sleep(0.005)
