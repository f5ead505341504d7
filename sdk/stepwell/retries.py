"""How often, and when, a failed step or function is tried again."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stepwell.durations import DAY, HOUR, MINUTE, SECOND, Duration, parse_duration
from stepwell.errors import ConfigError

MAX_RETRIES: Final = 20
DEFAULT_RETRIES: Final = 4
_TABLE: Final = (
    *(15 * SECOND, 30 * SECOND, MINUTE, 2 * MINUTE, 5 * MINUTE),
    *(10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, 2 * HOUR),
)
_MOST: Final = 30 * DAY


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waits between attempts: the n-th of `table` (the last for all further), plus `jitter`.

    Each is a duration of at most 30 days. Raises `ConfigError` or `DurationError`.

    >>> Backoff(["1s", "10s", "1m"], jitter=0).delay_ms(7, random.Random())
    60000
    """

    table: Sequence[Duration] = _TABLE
    jitter: Duration = 30 * SECOND
    table_ms: tuple[int, ...] = field(init=False, repr=False, compare=False)
    jitter_ms: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_table(self.table)
        waits = tuple(
            parse_duration(wait, argument=f"Backoff(table=)[{index}]", maximum=_MOST)
            for index, wait in enumerate(self.table)
        )
        object.__setattr__(self, "table", tuple(self.table))
        object.__setattr__(self, "table_ms", waits)
        jitter = parse_duration(self.jitter, argument="Backoff(jitter=)", maximum=_MOST)
        object.__setattr__(self, "jitter_ms", jitter)

    @classmethod
    def constant(cls, delay: Duration, *, jitter: Duration = 0) -> "Backoff":
        """The same wait every time.

        >>> Backoff.constant("10s").delay_ms(3, random.Random())
        10000
        """
        return cls((delay,), jitter)

    @classmethod
    def exponential(
        cls,
        first: Duration = SECOND,
        *,
        factor: float = 2.0,
        maximum: Duration = HOUR,
        jitter: Duration = 0,
    ) -> "Backoff":
        """`first`, then `factor` times the wait before, up to `maximum`.

        >>> Backoff.exponential("1s").table_ms[:4]
        (1000, 2000, 4000, 8000)
        """
        if isinstance(factor, bool) or not 1 <= factor <= 100:
            raise ConfigError(f"Backoff.exponential(factor=): {factor!r}; write a number 1 to 100")
        wait = parse_duration(first, argument="Backoff.exponential(first=)", maximum=_MOST)
        most = parse_duration(maximum, argument="Backoff.exponential(maximum=)", maximum=_MOST)
        waits = [min(int(wait * factor**n), most) for n in range(MAX_RETRIES)]
        return cls(waits, jitter)

    def delay_ms(self, attempt: int, rng: random.Random) -> int:
        """The wait after the failure of `attempt` (0 = the first), in milliseconds."""
        wait = self.table_ms[min(attempt, len(self.table_ms) - 1)]
        return wait + (rng.randint(0, self.jitter_ms) if self.jitter_ms else 0)


@dataclass(frozen=True, slots=True)
class Retries:
    """How a step, or the function's body, is tried: `attempts` times in all (1-21).

    Each step and the body count for themselves. Raises `ConfigError`.

    >>> Retries(attempts=3, backoff=Backoff.constant("5s")).delay_ms(0, random.Random())
    5000
    """

    attempts: int = DEFAULT_RETRIES + 1
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        attempts: object = self.attempts
        if type(attempts) is not int or not 1 <= attempts <= MAX_RETRIES + 1:
            raise ConfigError(
                f"Retries(attempts=): {attempts!r}; write an int from 1 (no retry) to "
                f"{MAX_RETRIES + 1}: the first attempt counts too"
            )
        _check_backoff(self.backoff)

    def delay_ms(self, attempt: int, rng: random.Random) -> int:
        """The wait after the failure of `attempt` (0 = the first), in milliseconds."""
        return self.backoff.delay_ms(attempt, rng)

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        backoff = self.backoff
        return {
            "attempts": self.attempts,
            "table_ms": list(backoff.table_ms),
            "jitter_ms": backoff.jitter_ms,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Retries":
        """What `config` returned, back."""
        return cls(config["attempts"], Backoff(tuple(config["table_ms"]), config["jitter_ms"]))


def _check_table(table: object) -> None:
    if isinstance(table, str) or not isinstance(table, Sequence) or not table:
        raise ConfigError(
            f'Backoff(table=): {table!r} is not a list of waits; write ["15s", "1m", "10m"]'
        )


def _check_backoff(backoff: object) -> None:
    if not isinstance(backoff, Backoff):
        raise ConfigError(
            f'Retries(backoff=): {backoff!r}; write Backoff(...), or Backoff.constant("10s")'
        )


def parse_retries(value: int | Retries | None, *, argument: str) -> Retries:
    """The `retries=` argument: a number of retries (one attempt more), or `Retries`; None is 4."""
    if value is None:
        return Retries()
    if isinstance(value, Retries):
        return value
    if type(value) is not int or not 0 <= value <= MAX_RETRIES:
        raise ConfigError(
            f"{argument}: {value!r}; write a number of retries from 0 to {MAX_RETRIES}, or "
            'Retries(attempts=5, backoff=Backoff.constant("10s"))'
        )
    return Retries(value + 1)
