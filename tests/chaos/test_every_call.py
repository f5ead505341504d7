"""Every call is a place to die, in a seeded sample; all of them with STEPWELL_CHAOS_LONG=1 or `make chaos`."""

import os

import pytest

from tests.chaos.grid import every_case, run_cases, sample

SEED = int(os.environ.get("STEPWELL_CHAOS_SEED", "1"))
LONG = bool(os.environ.get("STEPWELL_CHAOS_LONG"))


@pytest.mark.anyio
@pytest.mark.timeout(7200 if LONG else 240)
async def test_a_process_may_die_at_any_call() -> None:
    tally = await run_cases(every_case() if LONG else sample(SEED, 48))
    assert not tally.failures, f"seed {SEED}\n" + "\n\n".join(tally.failures)
    assert tally.fired > tally.ran // 2, "most strikes came too late to disturb anything"
