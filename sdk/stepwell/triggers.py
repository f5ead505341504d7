"""What starts a function."""

from dataclasses import dataclass

from stepwell.errors import ConfigError
from stepwell.events import NAME_CHARS


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


def _check_event(event: object) -> None:
    where = "TriggerEvent(event=)"
    if not isinstance(event, str) or not event:
        raise ConfigError(
            f"{where}: {event!r} is not an event name; write a string such as "
            '"shop/order.created" or "shop/order.*"'
        )
    if len(event) > NAME_CHARS:
        raise ConfigError(f"{where}: {len(event)} characters, the most is {NAME_CHARS}")
    if "*" in event[:-1] or (event[-1] == "*" and event[-2:-1] not in ("/", ".")):
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
