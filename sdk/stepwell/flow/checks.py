"""The checks that flow-control options share. Errors name option and argument, and say what to write.

Whether an expression compiles is checked where a function is made with the option: that needs the engine.
"""

from typing import Final, get_args

from stepwell.durations import MAX_SLEEP_MS, SECOND, Duration, parse_duration
from stepwell.errors import ConfigError, DurationError
from stepwell.events import NAME_CHARS, OWN

MOST: Final = 1_000_000_000
"""The most a limit may be: scripts count in doubles, and no one means more."""

_BY_EVENT: Final = "an expression such as \"event.data.plan == 'pro' ? 10 : 2\""


def whole(value: object, argument: str, least: int, most: int = MOST, note: str = "") -> None:
    """An int from `least` to `most`, never a bool."""
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"{argument}: {value!r}; write an int from {least:,}{note} to {most:,}")


def limit(value: object, argument: str, least: int, most: int = MOST, note: str = "") -> None:
    """As `whole`, or the text of an expression that gives such a number for an event."""
    if not isinstance(value, str):
        try:
            return whole(value, argument, least, most, note)
        except ConfigError as error:
            raise ConfigError(f"{error}, or a string: {_BY_EVENT}") from None
    if not value.strip():
        raise ConfigError(
            f"{argument}: {value!r} is not an expression; write {_BY_EVENT}, or an int"
        )
    return None


def event_name(event: object, argument: str, example: str) -> str:
    """An event's name, or a pattern of names: what a `*` may stand for is the caller's to check."""
    if not isinstance(event, str) or not event:
        raise ConfigError(
            f"{argument}: {event!r} is not an event name; write a string such as {example}"
        )
    if len(event) > NAME_CHARS:
        raise ConfigError(f"{argument}: {len(event)} characters, the most is {NAME_CHARS}")
    if event.startswith(OWN):
        raise ConfigError(
            f"{argument}: {event!r}: no event has a name that begins with {OWN!r}; write a string such as {example}"
        )
    return event


def duration(value: Duration, argument: str, most: int = MAX_SLEEP_MS) -> int:
    """The milliseconds of a duration from 1 second to `most`."""
    try:
        return parse_duration(value, argument=argument, minimum=SECOND, maximum=most)
    except DurationError as error:
        raise ConfigError(str(error)) from error


def optional_duration(
    value: Duration | None, argument: str, most: int = MAX_SLEEP_MS
) -> int | None:
    """As `duration`; None stays None."""
    return None if value is None else duration(value, argument, most)


def expression(value: object, argument: str, example: str, *, optional: bool = True) -> None:
    """The text of an expression."""
    if optional and value is None:
        return
    if not isinstance(value, str) or not value.strip():
        rest = ", or leave it out" if optional else ""
        raise ConfigError(
            f'{argument}: {value!r} is not an expression; write one such as "{example}"{rest}'
        )


def flag(value: object, argument: str) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{argument}: {value!r}; write True or False")


def word(value: object, argument: str, words: object) -> None:
    """One of the words of a `Literal`."""
    known: tuple[str, ...] = get_args(words)
    if value not in known:
        raise ConfigError(f"{argument}: {value!r}; write one of {', '.join(map(repr, known))}")
