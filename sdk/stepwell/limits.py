"""The limits that may be set: how much an event, a send, a step and a run may hold."""

from dataclasses import dataclass, fields
from typing import Final

from stepwell.errors import ConfigError

MiB: Final = 1 << 20

# The most each may be set to: beyond it one call would hold the server or a reply for too long.
_MOST: Final = {
    "event": 32 * MiB,
    "events": 100_000,
    "send": 256 * MiB,
    "step_output": 32 * MiB,
    "run_state": 256 * MiB,
    "steps": 10_000,
    "triggers": 100,
    "cancels": 20,
    "concurrency": 2,
    "cron": 255,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on sizes and counts. Over one of them is an error, never a truncated write.

    In bytes: `event`, `send` (all events of a call), `step_output`, `run_state`. Numbers: `events`
    of a call, `steps` of a run; `triggers`, `cancels` and `concurrency` entries of a function.
    Characters: `cron`.

    Raises `ConfigError` for a value out of range.

    >>> Limits(event=1 << 20).steps
    1000
    """

    event: int = 3 * MiB
    events: int = 5_000
    send: int = 32 * MiB
    step_output: int = 4 * MiB
    run_state: int = 32 * MiB
    steps: int = 1_000
    triggers: int = 10
    cancels: int = 5
    concurrency: int = 2
    cron: int = 255

    def __post_init__(self) -> None:
        for item in fields(self):
            value: object = getattr(self, item.name)
            most = _MOST[item.name]
            if type(value) is not int or not 1 <= value <= most:
                raise ConfigError(
                    f"Limits.{item.name}: {value!r} is not a limit; write an int from 1 to {most:,}"
                )


DEFAULT_LIMITS: Final = Limits()
