"""Supervised loops: a task that outlives its troubles, with jittered backoff and one log line a trouble."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from stepwell.errors import ServerError
from stepwell_engine.metrics import Metrics
from stepwell_engine.store.errors_map import RETRYABLE

FIRST_BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 5.0

TROUBLE: Final[tuple[type[Exception], ...]] = (ServerError, OSError, TimeoutError, *RETRYABLE)
"""What says nothing against the data at hand: the server is away, so the same work is tried again."""

logger = logging.getLogger("stepwell.coordinator")

_RANDOM: Final = random.Random()

# CLOCK_MONOTONIC stands still while a machine sleeps; what it says of a batch's age would be a lie.
_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", None)


def boot_seconds() -> float:
    """Seconds on a clock that also runs while the process or its machine is suspended."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)


def time_ms(reply: list[bytes]) -> int:
    """The reply to TIME in milliseconds."""
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


class Backoff:
    """Growing pauses with jitter; `calm` after a success starts over.

    backoff = Backoff()
    await backoff.pause()
    """

    __slots__ = ("_random", "failures")

    def __init__(self, rng: random.Random | None = None) -> None:
        self.failures = 0
        # One of its own would be seeded from the system, for each batch that is handled.
        self._random = rng or _RANDOM

    async def pause(self) -> None:
        """Wait: half to all of 0.1 s doubled for each failure in a row, 5 s at most."""
        longest = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(self.failures, 10))
        self.failures += 1
        await asyncio.sleep(self._random.uniform(longest / 2, longest))

    def calm(self) -> None:
        """A try succeeded."""
        self.failures = 0


class Loop:
    """Calls `turn` for ever; what it raises is logged, counted and answered by a backoff.

    A server that is away is one warning, however long; any other error is logged with its traceback.
    Cancelling the task that runs it ends it. `age` is seconds since the last good turn (None = none).

        async with asyncio.TaskGroup() as group:
            group.create_task(Loop("sweep", sweep, metrics).run())
    """

    __slots__ = ("_backoff", "_good", "_metrics", "_turn", "name")

    def __init__(self, name: str, turn: Callable[[], Awaitable[None]], metrics: Metrics) -> None:
        self.name = name
        self._turn = turn
        self._metrics = metrics
        self._backoff = Backoff()
        self._good: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the last turn that went well; None before the first."""
        return None if self._good is None else boot_seconds() - self._good

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            try:
                await self._turn()
            except TROUBLE as error:
                self._metrics.redis_errors.inc()
                if self._backoff.failures == 0:
                    logger.warning("%s: %s; it goes on when the server is back", self.name, error)
                await self._backoff.pause()
            except Exception:
                logger.exception("%s failed and will be tried again", self.name)
                await self._backoff.pause()
            else:
                self._good = boot_seconds()
                if self._backoff.failures:
                    logger.info("%s: works again", self.name)
                    self._backoff.calm()
