"""Many events, one run: `Debounce` waits for quiet and takes the last, `Batch` collects them all."""

from dataclasses import dataclass, field
from typing import Any, Final

from stepwell.durations import DAY, MINUTE, Duration
from stepwell.errors import ConfigError
from stepwell.flow import checks

MAX_DEBOUNCE_MS: Final = 7 * DAY
MAX_BATCH_MS: Final = 7 * DAY
BATCH_MS: Final = MINUTE
MAX_BATCH: Final = 10_000


@dataclass(frozen=True, slots=True)
class Debounce:
    """One run when no event has come for `period`, with the last of them (by `ts`).

    `timeout` is how long after the first event it runs at the latest. `key`: a window for each value
    of that CEL expression over `event`; an event where it has no value is not debounced.
    `collect=True` gives the run all of the events in `ctx.events`. `period` is from 1 second to 7
    days. Raises `ConfigError`.

    >>> Debounce(period="30s", timeout="10m", key="event.data.document")
    """

    period: Duration
    key: str | None = None
    timeout: Duration | None = None
    collect: bool = False
    period_ms: int = field(init=False, repr=False, compare=False)
    timeout_ms: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        period = checks.duration(self.period, "Debounce(period=)", MAX_DEBOUNCE_MS)
        object.__setattr__(self, "period_ms", period)
        checks.expression(self.key, "Debounce(key=)", "event.data.document")
        timeout = checks.optional_duration(self.timeout, "Debounce(timeout=)")
        object.__setattr__(self, "timeout_ms", timeout)
        if timeout is not None and timeout < period:
            raise ConfigError(
                f"Debounce(timeout=): {self.timeout!r} is shorter than period={self.period!r}, which "
                "would then never pass; write a longer timeout, or leave it out"
            )
        checks.flag(self.collect, "Debounce(collect=)")

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {
            "period": self.period_ms,
            "key": self.key,
            "timeout": self.timeout_ms,
            "collect": self.collect,
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """One run for up to `max_size` events, in `ctx.events` in order of arrival.

    It runs when the batch is full (by number, or at 10 MiB), or `timeout` (1 second to 7 days; one
    minute by default) after its first event. `key`: a batch for each value of that CEL expression
    over `event`. An event for which `if_exp` is not true runs alone, at once. Not together with
    Cancel, Debounce, Priority or Singleton. Raises `ConfigError`.

    >>> Batch(max_size=100, timeout="5s", key="event.data.customer")
    """

    max_size: int
    timeout: Duration | None = None
    key: str | None = None
    if_exp: str | None = None
    timeout_ms: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.whole(self.max_size, "Batch(max_size=)", 2, MAX_BATCH)
        timeout = checks.optional_duration(self.timeout, "Batch(timeout=)", MAX_BATCH_MS)
        object.__setattr__(self, "timeout_ms", BATCH_MS if timeout is None else timeout)
        checks.expression(self.key, "Batch(key=)", "event.data.customer")
        checks.expression(self.if_exp, "Batch(if_exp=)", "event.data.plan != 'pro'")

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {
            "max_size": self.max_size,
            "timeout": self.timeout_ms,
            "key": self.key,
            "if": self.if_exp,
        }
