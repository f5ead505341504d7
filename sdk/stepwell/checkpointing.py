"""When what steps returned is made durable."""

from dataclasses import dataclass, field

from stepwell.durations import Duration, parse_duration
from stepwell.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """How a function that runs on inline records its steps.

    `buffered_steps` finished steps are written together (1: each is durable before the next
    begins); `max_interval` is how long a finished step may wait for the others; after `max_runtime`
    a run lets others have its place between two steps. A crash re-runs the steps not yet written.
    Raises `ConfigError` or `DurationError`.

    >>> Checkpointing(buffered_steps=20, max_interval="1s").max_interval_ms
    1000
    """

    buffered_steps: int = 1
    max_interval: Duration | None = None
    max_runtime: Duration = "5m"
    max_interval_ms: int | None = field(init=False, repr=False, compare=False)
    max_runtime_ms: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        steps: object = self.buffered_steps
        if type(steps) is not int or not 1 <= steps <= 1_000:
            raise ConfigError(
                f"Checkpointing(buffered_steps=): {steps!r}; write an int from 1 to 1,000"
            )
        interval = None
        if self.max_interval is not None:
            interval = parse_duration(
                self.max_interval, argument="Checkpointing(max_interval=)", minimum=1
            )
        runtime = parse_duration(
            self.max_runtime, argument="Checkpointing(max_runtime=)", minimum=1
        )
        object.__setattr__(self, "max_interval_ms", interval)
        object.__setattr__(self, "max_runtime_ms", runtime)
