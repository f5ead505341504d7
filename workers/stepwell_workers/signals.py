"""SIGTERM and SIGINT to intentions: the first drains, the second releases now, the third kills."""

import asyncio
import contextlib
import logging
import signal
import threading
from types import FrameType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """What a process was told to do, as two events of the loop that enters it.

    `drain`: take nothing new, let steps end. `release`: give everything back at once. Works with
    asyncio and uvloop; outside the main thread it takes no signals and only `request` sets it.

        with Shutdown() as shutdown:
            await shutdown.drain.wait()
    """

    def __init__(self, *, logger: logging.Logger | None = None) -> None:
        self.drain = asyncio.Event()
        self.release = asyncio.Event()
        self._logger = logger or logging.getLogger("stepwell")
        self._stage = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            # Not loop.add_signal_handler: that one needs a turn of the loop, and a loop blocked by
            # user code would leave even the third Ctrl-C without effect.
            self._before = {each: signal.signal(each, self._on_signal) for each in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            # None: set by C code, which Python can't put back.
            signal.signal(each, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def request(self, why: str = "asked to stop") -> None:
        """Go one stage on, as a signal does; from any thread."""
        self._stage += 1
        assert self._loop is not None, "enter the Shutdown first"
        with contextlib.suppress(RuntimeError):  # the loop is closed: everything has ended
            self._loop.call_soon_threadsafe(self._advance, self._stage, why)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)
        if self._stage >= 2:
            # Python's own handler can't run while C code holds the GIL; the default one can.
            for each in self._before:
                signal.signal(each, signal.SIG_DFL)

    def _advance(self, stage: int, why: str) -> None:
        # Here and not in the handler: logging isn't safe in the middle of logging.
        self.drain.set()
        if stage == 1:
            self._logger.info("%s: draining; once more releases the work at once", why)
        elif not self.release.is_set():
            self.release.set()
            self._logger.warning("%s again: releasing the work now", why)
