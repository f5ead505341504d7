"""The pytest plugin: one fixture, `stepwell_engine`. Loading it costs next to nothing."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stepwell.testing.engine import Engine


@pytest.fixture
def stepwell_engine() -> "type[Engine]":
    """The class `stepwell.testing.Engine`: a whole engine for one test, on a clock you move.

    @pytest.mark.anyio
    async def test_order(stepwell_engine):
        async with stepwell_engine([client]) as engine:
            [event_id] = await engine.send(Event("shop/order", {"total": 5}))
            await engine.advance("7d")
            run = await engine.wait(event_id)
            assert run.output == "shipped"
    """
    from stepwell.testing.engine import Engine

    return Engine
