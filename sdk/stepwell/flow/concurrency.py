"""How many executions may go on at once."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from stepwell.errors import ConfigError
from stepwell.flow import checks

Scope: TypeAlias = Literal["fn", "env", "account"]
Level: TypeAlias = Literal["step", "run"]


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` executions at once; over it they wait in the queue. 0 is no limit.

    `limit` may be a CEL expression over `event` too: the newest event's value is its key's limit
    from then on, for what is queued as well. Where it has no value the key's limit stays as it was.

    `key`: a limit for each value of that CEL expression over `event`; events without a value share
    one. `scope="fn"` counts this function only; `"env"` and `"account"` count all functions that
    write the same scope and key, and so need a key.

    `level="step"` counts what executes: sleeping, waiting and invoking hold nothing, each parallel
    branch holds its own place (such a function is distributed). `level="run"` holds the place from
    the run's start to its end. Keys are served in turn; `weight`, an expression too, gives a key
    that many turns. Raises `ConfigError`.

    >>> Concurrency(limit=5, key="event.data.customer", weight="event.data.plan == 'pro' ? 3 : 1")
    >>> Concurrency(limit=10, key="'payment-provider'", scope="env")
    >>> Concurrency(limit="event.data.plan == 'pro' ? 10 : 2", key="event.data.customer")
    """

    limit: int | str
    key: str | None = None
    scope: Scope | None = "fn"
    level: Level = "step"
    weight: str | None = None

    def __post_init__(self) -> None:
        checks.limit(self.limit, "Concurrency(limit=)", 0, note=" (no limit)")
        checks.expression(self.key, "Concurrency(key=)", "event.data.customer")
        if self.scope is None:  # what the `inngest` package writes for "fn"
            object.__setattr__(self, "scope", "fn")
        checks.word(self.scope, "Concurrency(scope=)", Scope)
        checks.word(self.level, "Concurrency(level=)", Level)
        checks.expression(self.weight, "Concurrency(weight=)", "event.data.plan == 'pro' ? 3 : 1")
        if self.scope != "fn" and self.key is None:
            raise ConfigError(
                f"Concurrency(key=): missing, but scope={self.scope!r} counts together the functions "
                "that write the same key; write one such as \"'payment-provider'\""
            )
        if self.weight is not None and self.key is None:
            raise ConfigError(
                "Concurrency(weight=): without key= there is nobody to have more turns than; "
                'write key="event.data.customer" or the like, or leave weight= out'
            )

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        return {
            "limit": self.limit,
            "key": self.key,
            "scope": self.scope,
            "level": self.level,
            "weight": self.weight,
        }
