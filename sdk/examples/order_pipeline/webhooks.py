"""The file of webhooks, and what a right pipeline makes of it: worked out from the file alone."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepwell import Event

FILE = Path(__file__).with_name("webhooks.jsonl")
SHIPPED = "shop/shipment.dispatched"

Expected = Counter[tuple[str, str]]
"""How many runs of each (function, status)."""


@dataclass(slots=True)
class Webhooks:
    """The usable lines as events, in order and with repetitions, and the others with their fault."""

    events: list[Event] = field(default_factory=list[Event])
    refused: list[str] = field(default_factory=list[str])

    @property
    def repeated(self) -> int:
        """Lines that were delivered before."""
        return len(self.events) - len({event.id for event in self.events})


def read(path: Path = FILE, limit: int | None = None) -> Webhooks:
    """Reads a file with a webhook a line; of orders beyond the first `limit`, nothing.

    >>> len(read().refused)
    3
    """
    found = Webhooks()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            event = _event(json.loads(line))
        except (ValueError, LookupError, TypeError) as error:
            found.refused.append(f"line {number}: {type(error).__name__}: {error}")
        else:
            found.events.append(event)
    if limit is not None:
        orders = list(
            dict.fromkeys(e.data["order_id"] for e in found.events if "order." in e.name)
        )[:limit]
        found.events = [e for e in found.events if e.data["order_id"] in orders]
    return found


def _event(raw: dict[str, Any]) -> Event:
    # The sender's id makes a repeated delivery a duplicate, whichever process takes it.
    return Event(f"shop/{raw['type']}", raw["data"], id=raw["id"])


def expected(events: list[Event]) -> Expected:
    """The runs that these events come to."""
    once = {event.id: event for event in events}.values()
    shipped = {e.data["order_id"] for e in once if e.name == SHIPPED}
    runs: Expected = Counter()
    for event in once:
        if event.name.startswith("shop/shipment."):
            runs["track-shipment", "completed"] += 1
        if event.name != "shop/order.created" or event.data["total"] <= 0:
            continue
        if not event.data["items"] or event.data["payment"]["token"] == "tok_chargeDeclined":
            runs["fulfil-order", "failed"] += 1
            runs["fulfil-order-failure", "completed"] += 1
            continue
        runs["fulfil-order", "completed"] += 1
        runs["make-invoice", "completed"] += 1
        if event.data["order_id"] in shipped:
            runs["award-points", "completed"] += 1
    return runs
