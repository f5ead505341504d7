"""A process whose loop is blocked still obeys: the third signal kills it."""

import signal
import subprocess
import sys

import pytest

BLOCKED = """
import asyncio, sys
from stepwell_workers.signals import Shutdown
from stepwell_workers.uv import loop_factory
async def main():
    with Shutdown() as shutdown:
        seen = -1
        while True:  # never gives the loop a turn
            if shutdown._stage != seen:
                seen = shutdown._stage
                print(seen, flush=True)
factory = loop_factory() if sys.argv[1] == "uvloop" else None
asyncio.Runner(loop_factory=factory).run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_third_signal_kills_a_blocked_process(loop: str) -> None:
    command = [sys.executable, "-c", BLOCKED, loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for stage in range(3):
            assert process.stdout.readline() == f"{stage}\n"
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
