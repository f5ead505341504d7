"""The lag watch: who blocks the loop, told once, and how long it was."""

import asyncio
import inspect
import json
import logging
import threading
from collections.abc import Callable
from types import FrameType

import pytest

from stepwell_workers.lag import LagWatch, culprit

FAST = 0.05


class Told(logging.Handler):
    """Keeps warnings and opens `event` at each."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.event.set()


@pytest.fixture
def told() -> Told:
    return Told()


def watch_with(told: Told, observe: Callable[[float], object]) -> LagWatch:
    logger = logging.Logger("lag-test")  # noqa: LOG001 - on its own: no other test's handlers
    logger.addHandler(told)
    return LagWatch(observe, threshold=FAST, logger=logger)


def hog(release: threading.Event) -> None:
    assert release.wait(10), "the watch said nothing"


def test_names_the_blocking_function_once_and_measures(told: Told) -> None:
    seen: list[float] = []
    answered = threading.Event()

    def observe(seconds: float) -> None:
        seen.append(seconds)
        answered.set()

    async def main() -> None:
        watch = watch_with(told, observe)
        watch.start()
        hog(told.event)
        answered.clear()
        told.event.clear()
        await asyncio.to_thread(answered.wait, 10)
        # The same place again, in a while not named again: wait for its measurement instead.
        block_until = threading.Event()
        threading.Timer(4 * FAST, block_until.set).start()
        hog(block_until)
        answered.clear()
        await asyncio.to_thread(answered.wait, 10)
        watch.stop()

    asyncio.run(main())
    assert len(told.lines) == 1
    line = inspect.getsourcelines(hog)[1] + 1
    assert told.lines[0].startswith(f"hog blocks the event loop ({__file__}, line {line})")
    assert sum(seconds > FAST for seconds in seen) >= 2


def test_a_free_loop_is_not_warned_of(told: Told) -> None:
    answers = threading.Semaphore(0)

    async def main() -> None:
        watch = watch_with(told, lambda _: answers.release())
        watch.start()
        for _ in range(3):
            await asyncio.to_thread(answers.acquire, timeout=10)
        watch.stop()
        watch.stop()

    asyncio.run(main())
    assert told.lines == []


def test_ends_with_its_loop(told: Told) -> None:
    watch = watch_with(told, lambda _: None)

    async def main() -> None:
        watch.start()

    asyncio.run(main())
    assert watch._thread is not None
    watch._thread.join(10)
    assert not watch._thread.is_alive()


def test_culprit_is_the_users_innermost_frame() -> None:
    caught: list[FrameType | None] = []

    def default(_: object) -> str:
        caught.append(inspect.currentframe())
        return ""

    def user() -> None:
        json.dumps(object(), default=default)

    user()
    assert caught[0] is not None
    assert caught[0].f_back is not None
    at = culprit(caught[0].f_back)  # json's own frame: its caller is named instead
    assert at is not None
    assert at[0] == __file__
    assert at[2].endswith("user")
    assert culprit(None) is None
