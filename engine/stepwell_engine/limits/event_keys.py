"""The keys of a function's options over one event, and what becomes of a key that has no value.

One rule: where a bad key would lose or merge events (idempotency, rate limit, singleton, debounce) the option is off for that
event; elsewhere the key is `null`. `false` turns any option off. Bad keys are noted as faults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from stepwell.errors import ExpressionError
from stepwell_engine.expressions import Program, canonical, compile, short_hash  # noqa: A004
from stepwell_engine.expressions.values import FaultError

Fields = Mapping[str, Any]

_NULL: Final = b"null"


class KeyFault(NamedTuple):
    """A key without a value: of which option (as it is written in `create_function`), and why."""

    option: str
    text: str


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression of an option, compiled as the option is read: the grammar is not in the way of an event.

    One that does not compile has an `error` in place of a program, and is a fault of each event.
    """

    option: str
    text: str
    program: Program | None
    error: str = ""

    @classmethod
    def read(cls, option: str, text: str, *, variables: tuple[str, ...] = ("event",)) -> Self:
        """The expression in an option's config."""
        try:
            return cls(option, text, compile(text, variables=variables))
        except ExpressionError as error:
            return cls(option, text, None, str(error))


@dataclass(frozen=True, slots=True)
class Key:
    """What tells the events of an option apart; without an expression all have one key.

    `subject` goes before the value in identities, after the function's number unless functions have the key together (`shared`).
    `null`: a bad key counts as `null`; else it turns the option off.
    """

    expression: Expression | None
    subject: bytes
    null: bool
    shared: bool = False

    @classmethod
    def read(cls, option: str, text: str | None, *, null: bool, place: int | str = "") -> Self:
        """The key in an option's config, or in that of its entry number `place`."""
        expression = None if text is None else Expression.read(option, text)
        return cls(expression, f"\0{option}{place}\0".encode(), null)


class EventKeys:
    """The keys of one function over one event, which `fields` gives when an expression needs it.

    >>> keys = EventKeys("7", lambda: {"data": {"user": 5}}, 0)
    >>> keys.identity(Key.read("debounce", "event.data.user", null=False))
    'dqpsRn5_5SfUbVD8'
    """

    __slots__ = ("_event", "_fields", "_now_ms", "_number", "faults")

    def __init__(self, number: str, fields: Callable[[], Fields], now_ms: int) -> None:
        self._number = number.encode()
        self._fields = fields
        self._event: Fields | None = None
        self._now_ms = now_ms
        self.faults: list[KeyFault] = []

    def value(self, expression: Expression) -> Any:
        """What the expression gives; None, and a fault, where it has no value."""
        program = expression.program
        if program is None:
            self.fault(expression.option, expression.error)
            return None
        if self._event is None:
            self._event = self._fields()
        try:
            value = program.evaluate(self._event, now_ms=self._now_ms)
        except ExpressionError as error:
            self.fault(expression.option, str(error))
            return None
        if value is None:
            self.fault(expression.option, f"expression {expression.text!r} is null here")
        return value

    def fault(self, option: str, text: str) -> None:
        """Note a key that can't be used."""
        self.faults.append(KeyFault(option, text))

    def identity(self, key: Key) -> str | None:
        """16 characters for the key's subject and value; None when the option is off.

        Equal values (150 and 150.0) have the same.
        """
        number = b"" if key.shared else self._number
        if key.expression is None:
            return _identity(number, key.subject, None)
        value = self.value(key.expression)
        if type(value) is str or type(value) is int:  # what nearly every key is
            return _identity(number, key.subject, value)
        if value is False:
            return None
        known = None if value is None else self._canonical(key.expression.option, value)
        if known is None:
            if not key.null:
                return None
            known = _NULL
        return short_hash(number + key.subject + known).decode()

    def _canonical(self, option: str, value: object) -> bytes | None:
        try:
            known = canonical(value)
        except FaultError as fault:
            self.fault(option, str(fault))
            return None
        if known is None:
            self.fault(option, "the value is not a number (NaN)")
        return known


@lru_cache(maxsize=16_384)
def _identity(number: bytes, subject: bytes, value: str | int | None) -> str:
    return short_hash(number + subject + (canonical(value) or b"")).decode()
