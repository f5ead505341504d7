"""What ends a run from outside: an event (`Cancel`), or time (`Timeouts`)."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from stepwell.durations import Duration
from stepwell.errors import ConfigError
from stepwell.flow import checks

_PATH: Final = re.compile(r"(data|user|id|name|ts|v)(\.[A-Za-z_]\w*)*", re.ASCII)
"""A field that an event may have."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel a run when an `event` of that name comes after the one that started it.

    `if_exp` is CEL over `event` (the run's) and `async` (the one that has come); `match="data.id"` is
    short for `event.data.id == async.data.id`. With neither, every event of the name cancels.
    `timeout` is how long the run can be cancelled so; without one, as long as it lives. Raises
    `ConfigError`.

    >>> Cancel(event="shop/order.cancelled", match="data.order_id")
    """

    event: str
    if_exp: str | None = None
    match: str | None = None
    timeout: Duration | None = None
    timeout_ms: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_event(self.event)
        example = "event.data.id == async.data.id"
        checks.expression(self.if_exp, "Cancel(if_exp=)", example)
        _check_match(self.match)
        if self.if_exp is not None and self.match is not None:
            raise ConfigError(
                "Cancel(match=): there is if_exp= as well; write one of the two, or "
                f'if_exp="event.{self.match} == async.{self.match} && ..."'
            )
        timeout = checks.optional_duration(self.timeout, "Cancel(timeout=)")
        object.__setattr__(self, "timeout_ms", timeout)

    @property
    def expression(self) -> str | None:
        """The condition, however it was written; None when there is none."""
        if self.match is None:
            return self.if_exp
        return f"event.{self.match} == async.{self.match}"

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {
            "event": self.event,
            "if": self.if_exp,
            "match": self.match,
            "timeout": self.timeout_ms,
        }


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Cancel a run that takes too long: to `start` after it was made, to `finish` after it started.

    Both are durations of at least 1 second. `run` is another name for `finish`. Raises
    `ConfigError`.

    >>> Timeouts(start="10m", finish="2h")
    """

    start: Duration | None = None
    finish: Duration | None = None
    run: Duration | None = None
    start_ms: int | None = field(init=False, repr=False, compare=False)
    finish_ms: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.finish is not None and self.run is not None:
            raise ConfigError(
                "Timeouts(run=): it is another name for finish=, which is there as well; write finish= alone"
            )
        start = checks.optional_duration(self.start, "Timeouts(start=)")
        finish = checks.optional_duration(self.finish, "Timeouts(finish=)")
        run = checks.optional_duration(self.run, "Timeouts(run=)")
        object.__setattr__(self, "start_ms", start)
        object.__setattr__(self, "finish_ms", run if finish is None else finish)

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {"start": self.start_ms, "finish": self.finish_ms}


def _check_event(event: object) -> None:
    where = "Cancel(event=)"
    if "*" in checks.event_name(event, where, '"shop/order.cancelled"'):
        raise ConfigError(
            f"{where}: {event!r}: wildcards are for triggers; write one Cancel for each exact name"
        )


def _check_match(match: object) -> None:
    if match is not None and (not isinstance(match, str) or not _PATH.fullmatch(match)):
        raise ConfigError(
            f"Cancel(match=): {match!r} is not the dotted name of a field of both events; "
            'write one such as "data.order_id", or an expression as if_exp='
        )
