"""Watches the event loop from a thread and names the function that blocks it.

A blocked loop costs no lease (the heartbeat has a thread of its own) but stops every other run.
"""

import asyncio
import importlib.util
import logging
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

THRESHOLD: Final = 0.25
"""Seconds without a turn after which the loop counts as blocked."""

REPEAT: Final = 60.0
"""Seconds before the same line is named again."""

_OWN: Final = ("stepwell", "stepwell_engine", "stepwell_workers")


class LagWatch:
    """Asks the loop for a turn every `threshold`/2 seconds, idle too: about 8 wake-ups a second.

    `observe(seconds)` is called in the watch's thread with each answer's delay. A delay over
    `threshold` logs one warning that names file, line and function of the user's code on the loop's
    stack. Start it in the loop to watch.

        watch = LagWatch(metrics.loop_lag.set)
        watch.start()
        ...
        watch.stop()
    """

    def __init__(
        self,
        observe: Callable[[float], object],
        *,
        threshold: float = THRESHOLD,
        logger: logging.Logger | None = None,
    ) -> None:
        self._observe = observe
        self._threshold = threshold
        self._logger = logger or logging.getLogger("stepwell.lag")
        self._stopping = threading.Event()
        self._named: dict[tuple[str, int], float] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch the running loop from now on."""
        assert self._thread is None, "a LagWatch starts once"
        self._thread = threading.Thread(
            target=self._run,
            args=(asyncio.get_running_loop(), threading.get_ident()),
            name="stepwell-lag",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within `threshold` even if the loop doesn't turn. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(self._threshold)

    def _run(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while not self._stopping.wait(self._threshold / 2):
            turned = threading.Event()
            asked = time.monotonic()
            try:
                loop.call_soon_threadsafe(turned.set)
            except RuntimeError:
                return  # the loop is closed
            if not turned.wait(self._threshold):
                self._blocked(thread)
                while not turned.wait(self._threshold):
                    if self._stopping.is_set() or loop.is_closed():
                        return
            self._observe(time.monotonic() - asked)

    def _blocked(self, thread: int) -> None:
        frames = sys._current_frames()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
        frame = frames.pop(thread, None)
        at = culprit(frame)
        del frame, frames  # they hold the locals of everything on the loop's stack
        if at is None:
            if self._may_name(("", 0)):
                self._logger.warning(
                    "the event loop had no turn for %d ms, and no user code is on its stack: "
                    "another thread holds the GIL, or the machine is short of CPU",
                    self._threshold * 1000,
                )
            return
        file, line, function = at
        if self._may_name((file, line)):
            self._logger.warning(
                "%s blocks the event loop (%s, line %d): no other run of this worker goes on "
                "for more than %d ms; make it async, or hand a plain function to step.run",
                function,
                file,
                line,
                self._threshold * 1000,
            )

    def _may_name(self, place: tuple[str, int]) -> bool:
        now = time.monotonic()
        self._named = {at: when for at, when in self._named.items() if now - when < REPEAT}
        if place in self._named:
            return False
        self._named[place] = now
        return True


def culprit(frame: FrameType | None) -> tuple[str, int, str] | None:
    """File, line and function of the innermost frame that is the user's; None if there is none.

    The standard library, installed packages and Stepwell itself are not the user's.
    """
    for each in _outward(frame):
        file = each.f_code.co_filename
        if not file.startswith("<") and not file.startswith(_FOREIGN):
            return file, each.f_lineno, each.f_code.co_qualname
    return None


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _foreign() -> tuple[str, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    for name in _OWN:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            paths.add(str(Path(spec.origin).parent))
    paths |= {str(Path(path).resolve()) for path in paths}
    return tuple(f"{path.rstrip('/')}/" for path in sorted(paths))


_FOREIGN: Final = _foreign()
