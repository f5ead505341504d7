"""Random programs on the whole engine, in virtual time, against a model of forty lines: same output, same end, same calls.

STEPWELL_SIM_EXAMPLES: how many (60 take some ten seconds).
"""

import asyncio
import itertools
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from stepwell.events import Event
from stepwell.records import Run, RunStatus
from stepwell.testing.engine import Engine
from stepwell.testing.server import Kind
from tests.sim.functions import make_client
from tests.sim.model import Played
from tests.sim.program import Case, Outside, cases

EXAMPLES = int(os.environ.get("STEPWELL_SIM_EXAMPLES", "60"))


class Simulator:
    """One engine for all examples; each has a key of its own."""

    def __init__(self, runner: "asyncio.Runner", kind: Kind) -> None:
        self._runner = runner
        self._keys = map(str, itertools.count())
        self._calls: list[tuple[str, int, str]] = []
        self.engine = Engine(make_client(self._called), shards=4, server=kind)

    def _called(self, key: str, path: str) -> None:
        self._calls.append((key, self.engine.clock.now_ms(), path))

    def play(self, case: Case) -> tuple[Run, int, list[tuple[int, str]]]:
        """The run, the minute of its end, and its calls."""
        return self._runner.run(self._play(case))

    async def _play(self, case: Case) -> tuple[Run, int, list[tuple[int, str]]]:
        engine, key = self.engine, next(self._keys)
        start = engine.clock.now_ms()

        async def until(minute: int) -> None:
            left = start + minute * 60_000 - engine.clock.now_ms()
            await engine.advance(timedelta(milliseconds=max(0, left)))

        [event_id] = await engine.send(Event(f"sim/{case.fn}", {"key": key, "ops": list(case.ops)}))
        for outside in case.outside:
            await until(outside.at)
            if outside.name is None:
                await engine.restart_worker()
            else:
                data = {"key": key, "n": outside.n, "at": outside.at}
                await engine.send(Event(outside.name, data))
            await engine.settle()
        await engine.advance("2d")
        run = await engine.wait(event_id)
        assert run.ended_at is not None
        ended = _minute(start, run.ended_at.timestamp() * 1000)
        mine = [(_minute(start, at), path) for of, at, path in self._calls if of == key]
        return run, ended, sorted(mine)


def _minute(start: int, at: float) -> int:
    # The clock goes at its own pace meanwhile: seconds at most, over a whole example.
    return round((at - start) / 60_000)


@pytest.fixture(scope="module")
def simulator(server_kind: Kind) -> Iterator[Simulator]:
    with asyncio.Runner() as runner:
        made = Simulator(runner, server_kind)
        runner.run(made.engine.__aenter__())
        yield made
        runner.run(made.engine.__aexit__(None, None, None))


def _wait(minutes: int) -> dict[str, Any]:
    return {"do": "wait", "for": minutes, "name": "sim/a", "n": None}


@pytest.mark.timeout(60 + EXAMPLES)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="STEPWELL_SIM_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(cases())
@example(Case("plain", (_wait(20), _wait(20)), (Outside(5, "sim/a"),)))
@example(
    Case(
        "spread",
        ({"do": "parallel", "branches": [[_wait(20)], [{"do": "sleep", "for": 10}, _wait(20)]]},),
        (Outside(5, None), Outside(16, "sim/a")),
    )
)
def test_a_program_does_what_the_model_does(simulator: Simulator, case: Case) -> None:
    model = Played([event for event in case.outside if event.name is not None])
    results, end = model.ops(case.ops, 0, "")
    run, ended, calls = simulator.play(case)
    assert (run.status, run.error) == (RunStatus.COMPLETED, None)
    assert run.output == results
    assert ended == end
    assert calls == sorted(model.calls)
