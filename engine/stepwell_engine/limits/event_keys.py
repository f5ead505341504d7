"""The keys of a function's options over one event, and what becomes of a key that has no value.

One rule: where a bad key would lose or merge events (idempotency, rate limit, singleton, debounce) the option is off for that
event; elsewhere the key is `null`. `false` turns any option off. Bad keys are noted as faults.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from stepwell.errors import ExpressionError
from stepwell_engine.expressions import canonical, compile, short_hash  # noqa: A004
from stepwell_engine.expressions.values import FaultError

Fields = Mapping[str, Any]

_NULL: Final = b"null"


class KeyFault(NamedTuple):
    """A key without a value: of which option (as it is written in `create_function`), and why."""

    option: str
    text: str


class EventKeys:
    """The keys of one function over one event, which `fields` gives when an expression needs it.

    >>> keys = EventKeys("7", lambda: {"data": {"user": 5}}, 0)
    >>> keys.identity("debounce", "event.data.user", null=False)
    'dqpsRn5_5SfUbVD8'
    """

    __slots__ = ("_fields", "_now_ms", "_number", "faults")

    def __init__(self, number: str, fields: Callable[[], Fields], now_ms: int) -> None:
        self._number = number
        self._fields = fields
        self._now_ms = now_ms
        self.faults: list[KeyFault] = []

    def value(self, option: str, expression: str) -> Any:
        """What the expression gives; None, and a fault, where it has no value."""
        try:
            value = compile(expression, variables=("event",)).evaluate(
                self._fields(), None, now_ms=self._now_ms
            )
        except ExpressionError as error:
            self.fault(option, str(error))
            return None
        if value is None:
            self.fault(option, f"expression {expression!r} is null here")
        return value

    def fault(self, option: str, text: str) -> None:
        """Note a key that can't be used."""
        self.faults.append(KeyFault(option, text))

    def identity(
        self, option: str, expression: str | None, *, null: bool, place: int | str = ""
    ) -> str | None:
        """16 characters for (function, option, its place among several, the key's value); None when the option is off.

        `null` as for `encoded`.
        """
        encoded = self.encoded(option, expression, null=null)
        if encoded is None:
            return None
        return _identity(f"{self._number}\0{option}{place}\0", encoded)

    def encoded(self, option: str, expression: str | None, *, null: bool) -> bytes | None:
        """The key's value as bytes, equal for equal values (150 and 150.0), empty without a key; None when the option is off.

        `null`: a bad key counts as `null`; else it turns the option off.
        """
        if expression is None:
            return b""
        value = self.value(option, expression)
        if value is False:
            return None
        known = None if value is None else self._canonical(option, value)
        return _NULL if known is None and null else known

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
def _identity(subject: str, encoded: bytes) -> str:
    return short_hash(subject.encode() + encoded).decode()
