"""What starts a function: events by name, and times."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from stepwell.durations import MINUTE, Duration
from stepwell.errors import ConfigError
from stepwell.flow import checks

Catchup: TypeAlias = Literal["none", "last", "all"]

MAX_JITTER_MS: Final = 5 * MINUTE
_ZONE_PREFIX: Final = "TZ="


@dataclass(frozen=True, slots=True)
class TriggerEvent:
    """Start a function at an event of that name, if the CEL `expression` over `event` is true.

    A final `*` right after `/` or `.` stands for any rest: `"shop/*"`, `"shop/order.*"`. Raises
    `ConfigError`; whether the expression compiles is checked where a function is made of it.

    >>> TriggerEvent("shop/order.*", "event.data.total > 100").matches("shop/order.created")
    True
    """

    event: str
    expression: str | None = None

    def __post_init__(self) -> None:
        _check_event(self.event)
        _check_expression(self.expression)

    @property
    def prefix(self) -> str | None:
        """What the names that match begin with; None when the name is exact."""
        return self.event[:-1] if self.event[-1] == "*" else None

    def matches(self, name: str) -> bool:
        """Whether an event of that name is meant, its expression aside."""
        prefix = self.prefix
        return name == self.event if prefix is None else name.startswith(prefix)

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {"event": self.event, "expression": self.expression}


@dataclass(frozen=True, slots=True)
class TriggerCron:
    """Start a function at the times of a cron expression: five fields, or a name such as `@daily`.

    The times are UTC's unless `timezone="Europe/Paris"` is given, or the text begins with
    `TZ=Europe/Paris `. `jitter` puts each start off by up to that much (1 second to 5 minutes), by
    the same amount whoever computes it. `catchup` is what happens to times missed while nothing ran:
    `"last"` starts the newest one, `"all"` each of them, `"none"` lets them pass. The run's event is
    `inngest/scheduled.timer`.

    Raises `ConfigError`; whether the expression and the zone exist is checked where a function is
    made of it.

    >>> TriggerCron(cron="30 9 * * 1-5", timezone="Europe/Paris", jitter="1m")
    """

    cron: str
    jitter: Duration | None = None
    timezone: str | None = None
    catchup: Catchup = "last"
    jitter_ms: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_cron(self.cron)
        jitter = checks.optional_duration(self.jitter, "TriggerCron(jitter=)", MAX_JITTER_MS)
        object.__setattr__(self, "jitter_ms", jitter)
        _check_timezone(self.timezone)
        if self.timezone is not None and self.cron.lstrip().startswith(_ZONE_PREFIX):
            raise ConfigError(
                f"TriggerCron(timezone=): {self.timezone!r}, but cron={self.cron!r} names a zone as "
                "well; write the zone in one of the two"
            )
        checks.word(self.catchup, "TriggerCron(catchup=)", Catchup)

    @property
    def schedule(self) -> tuple[str, str]:
        """Its expression and its zone, the same however the two are written."""
        zone, text = self.timezone or "UTC", self.cron.split()
        if text[0].startswith(_ZONE_PREFIX):
            zone, text = text[0].removeprefix(_ZONE_PREFIX), text[1:]
        return " ".join(text).lower(), zone

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {
            "cron": self.cron,
            "timezone": self.timezone,
            "jitter": self.jitter_ms,
            "catchup": self.catchup,
        }


Trigger: TypeAlias = TriggerEvent | TriggerCron
"""What may stand in `create_function(trigger=)`, alone or in a list."""


def _check_event(event: object) -> None:
    where = "TriggerEvent(event=)"
    name = checks.event_name(event, where, '"shop/order.created" or "shop/order.*"')
    if "*" in name[:-1] or (name[-1] == "*" and name[-2:-1] not in ("/", ".")):
        raise ConfigError(
            f"{where}: {event!r}: a * may only be the last character, right after / or .; "
            'write "shop/*" or "shop/order.*"'
        )


def _check_expression(expression: object) -> None:
    if expression is not None and (not isinstance(expression, str) or not expression.strip()):
        raise ConfigError(
            f"TriggerEvent(expression=): {expression!r} is not an expression; write one such as "
            '"event.data.total > 100", or leave it out'
        )


def _check_cron(cron: object) -> None:
    if not isinstance(cron, str) or not cron.strip():
        raise ConfigError(
            f"TriggerCron(cron=): {cron!r} is not a cron expression; write one such as "
            '"30 9 * * 1-5" or "@daily"'
        )


def _check_timezone(timezone: object) -> None:
    if timezone is not None and (not isinstance(timezone, str) or not timezone):
        raise ConfigError(
            f"TriggerCron(timezone=): {timezone!r} is not a zone; write a name such as "
            '"Europe/Paris", or leave it out for UTC'
        )
