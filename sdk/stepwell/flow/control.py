"""All flow control of one function, and its form in the registry."""

from dataclasses import dataclass
from typing import Any

from stepwell.flow.cancel import Cancel, Timeouts
from stepwell.flow.concurrency import Concurrency
from stepwell.flow.order import Priority, Singleton
from stepwell.flow.rates import RateLimit, Throttle
from stepwell.flow.windows import Batch, Debounce


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowControl:
    """The flow-control options of a function, validated; each None or empty when not used."""

    batch_events: Batch | None = None
    cancel: tuple[Cancel, ...] = ()
    concurrency: tuple[Concurrency, ...] = ()
    debounce: Debounce | None = None
    idempotency: str | None = None
    priority: Priority | None = None
    rate_limit: RateLimit | None = None
    singleton: Singleton | None = None
    throttle: Throttle | None = None
    timeouts: Timeouts | None = None

    @property
    def counts_steps(self) -> bool:
        """Whether executing steps are counted, so that each branch must be an item of its own."""
        return any(one.level == "step" and one.limit != 0 for one in self.concurrency)

    def config(self) -> dict[str, Any]:
        """Plain values for the registry, of the options in use only. Durations are milliseconds."""
        config: dict[str, Any] = {}
        single = {
            "batch": self.batch_events,
            "debounce": self.debounce,
            "rate_limit": self.rate_limit,
            "singleton": self.singleton,
            "throttle": self.throttle,
        }
        config |= {name: one.config() for name, one in single.items() if one is not None}
        if self.cancel:
            config["cancel"] = [one.config() for one in self.cancel]
        if self.concurrency:
            config["concurrency"] = [one.config() for one in self.concurrency]
        if self.idempotency is not None:
            config["idempotency"] = self.idempotency
        if self.priority is not None:
            config["priority"] = self.priority.run
        if self.timeouts is not None and any(self.timeouts.config().values()):
            config["timeouts"] = self.timeouts.config()
        return config
