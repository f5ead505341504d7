"""Shutdown: stages, real signals on both loops, and what is put back."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable

import pytest

from stepwell_workers.signals import SIGNALS, Shutdown
from stepwell_workers.uv import loop_factory, run

Factory = Callable[[], asyncio.AbstractEventLoop] | None


@pytest.fixture(params=["asyncio", "uvloop"])
def factory(request: pytest.FixtureRequest) -> Factory:
    return loop_factory() if request.param == "uvloop" else None


@pytest.mark.parametrize("number", SIGNALS)
def test_first_drains_second_releases(factory: Factory, number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]

    async def main() -> None:
        with Shutdown() as shutdown:
            os.kill(os.getpid(), number)
            await asyncio.wait_for(shutdown.drain.wait(), 10)
            assert not shutdown.release.is_set()
            os.kill(os.getpid(), number)
            await asyncio.wait_for(shutdown.release.wait(), 10)
            # A third must kill even if Python gets no turn.
            assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL] * 2

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_request_from_another_thread_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stepwell")

    async def main() -> None:
        with Shutdown() as shutdown:
            threading.Thread(target=shutdown.request, args=("the pod ends",)).start()
            await asyncio.wait_for(shutdown.drain.wait(), 10)
            shutdown.request("the pod ends")
            await asyncio.wait_for(shutdown.release.wait(), 10)
            shutdown.request("the pod ends")

    run(main())
    assert [r.getMessage() for r in caplog.records] == [
        "the pod ends: draining; once more releases the work at once",
        "the pod ends again: releasing the work now",
    ]


def test_outside_the_main_thread_no_handler_is_touched() -> None:
    async def main() -> None:
        with Shutdown() as shutdown:
            shutdown.request()
            await asyncio.wait_for(shutdown.drain.wait(), 10)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run, args=(main(),))
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert signal.getsignal(signal.SIGTERM) is before
