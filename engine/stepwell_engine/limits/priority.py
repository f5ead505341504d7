"""Priority: a run's place in its queue is its acceptance less `seconds`, so it goes ahead of runs accepted up to that much earlier.

place = accepted_ms - 1000 · clip(value, -43,200, 43,200). The clip (12 h either way, as the incumbent's server does) bounds how long a run
of no priority can be overtaken by newer ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from stepwell_engine.expressions.values import NUMBERS
from stepwell_engine.limits.event_keys import EventKeys, Expression

OPTION = "priority"
MOST_S: Final = 43_200


@dataclass(frozen=True, slots=True)
class Priority:
    """`Priority(run="event.data.plan == 'pro' ? 120 : 0")`."""

    expression: Expression

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The option in a function's config."""
        text = config.get(OPTION)
        return None if text is None else cls(Expression.read(OPTION, str(text)))

    def ahead_ms(self, keys: EventKeys) -> int:
        """By how many ms the run goes ahead of its acceptance; 0 where the expression gives no number."""
        value = keys.value(self.expression)
        if value is None or value is False:
            return 0
        if type(value) not in NUMBERS or value != value:
            keys.fault(OPTION, f"{value!r} is no number of seconds")
            return 0
        return int(max(-MOST_S, min(MOST_S, value)) * 1000)
