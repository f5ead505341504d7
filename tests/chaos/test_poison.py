"""A function that kills its process fails alone, by name; its neighbours in the process complete."""

import asyncio
from pathlib import Path

import pytest

from stepwell_engine.embedded import EmbeddedServer
from tests.chaos import witness
from tests.chaos.arena import Arena, arena

NEIGHBOURS = 99


async def _keep_alive(here: Arena) -> None:
    """What a supervisor does."""
    while True:
        child = await here.spawn("worker")
        await asyncio.to_thread(child.wait)


@pytest.mark.anyio
async def test_a_function_that_kills_its_process_fails_alone_and_its_step_is_named(
    tmp_path: Path,
) -> None:
    with EmbeddedServer() as server:
        async with arena(server, tmp_path) as here:
            killer, _ = await here.driver.send("chaos/killer")
            for _ in range(NEIGHBOURS):
                await here.driver.send("chaos/sleeper")
            await here.spawn("coordinator")
            supervisor = asyncio.create_task(_keep_alive(here))
            try:
                problems = await here.verdict(60.0)
            finally:
                supervisor.cancel()
            assert not problems, "\n".join(problems)
            run = await here.client.get_run(here.driver.run_of(killer, "killer"))
            assert run.error is not None
            assert run.error.name == "WorkerLostError"
            assert "guilty" in run.error.message
            assert "innocent" not in run.error.message
            # Once among all the others, then max_crashes times alone.
            seen = [line for line in witness.read(here.place.witness) if line.step == "guilty"]
            assert len(seen) <= 4
            ended = await here.client.list_runs(fn_id="sleeper", status="completed", limit=100)
            assert len(ended.items) == NEIGHBOURS
