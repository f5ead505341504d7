"""Which run goes first (`Priority`), and whether there may be another one (`Singleton`)."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from stepwell.flow import checks

Mode: TypeAlias = Literal["skip", "cancel"]


@dataclass(frozen=True, slots=True)
class Priority:
    """A run queues as if its event had come that many seconds earlier.

    `run` is a CEL expression over `event` that gives a number of seconds, negative for later; it is
    clipped to 12 hours (43,200) either way, and counts as 0 where it has no value. Raises
    `ConfigError`.

    >>> Priority(run="event.data.plan == 'pro' ? 120 : 0")
    """

    run: str

    def __post_init__(self) -> None:
        example = "event.data.plan == 'pro' ? 120 : 0"
        checks.expression(self.run, "Priority(run=)", example, optional=False)


@dataclass(frozen=True, slots=True)
class Singleton:
    """One run at a time, from its creation to its end.

    While there is one, `mode="skip"` starts none for a further event, and records it as skipped;
    `"cancel"` cancels the run there is and starts the new one after it. `key`: one run for each
    value of that CEL expression over `event`; where it has no value, the option is off. Raises
    `ConfigError`.

    >>> Singleton(mode="skip", key="event.data.account")
    """

    mode: Mode
    key: str | None = None

    def __post_init__(self) -> None:
        checks.word(self.mode, "Singleton(mode=)", Mode)
        checks.expression(self.key, "Singleton(key=)", "event.data.account")

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {"mode": self.mode, "key": self.key}
