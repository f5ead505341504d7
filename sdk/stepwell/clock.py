"""The one place that reads the time; everything else takes a `Clock`."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from, in milliseconds since 1970 (UTC)."""

    @property
    def offset_ms(self) -> int:
        """What the server's scripts add to their own `TIME`: 0 outside tests."""
        ...

    def now_ms(self) -> int:
        """The time now, in milliseconds."""
        ...


class SystemClock:
    """The machine's clock.

    >>> SystemClock().now_ms() > 1_700_000_000_000
    True
    """

    __slots__ = ()

    offset_ms: int = 0
    """Always 0: real time is never shifted."""

    def now_ms(self) -> int:
        """The system's time, in milliseconds."""
        return time.time_ns() // 1_000_000


class VirtualClock:
    """The system's clock plus an offset that tests move forward.

    >>> clock = VirtualClock()
    >>> clock.offset_ms += 60_000
    """

    __slots__ = ("offset_ms",)

    def __init__(self, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms

    def now_ms(self) -> int:
        """The system's time plus the offset, in milliseconds."""
        return time.time_ns() // 1_000_000 + self.offset_ms
