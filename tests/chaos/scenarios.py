"""What is sent, what each function must come to, and what has to happen to a run on its way."""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import stepwell
from stepwell import Event
from stepwell.errors import ServerError
from stepwell.ids import function_shard, run_id, ulid_ms
from stepwell_engine.store.store import Store
from tests.chaos.bodies import APP

C, F, K = "c", "f", "k"

T = TypeVar("T")

ALONE: Final = (
    *("steps", "blocking", "sleeper", "late", "parallel", "spread"),
    *("race", "parent", "sender", "retried", "failing"),
)
"""Functions that need nothing but their event."""

TRIGGERS: Final[dict[str, tuple[str, ...]]] = {
    **{f"chaos/{fn}": (fn,) for fn in (*ALONE, "waiter", "signalled", "doomed", "leaf", "killer")},
    "chaos/go": (),
}
"""Which functions an event starts."""

OFFSPRING: Final[dict[str, dict[str, int]]] = {
    "parent": {"child": 1},
    "sender": {"leaf": 2},
    "failing": {"failing-failure": 1},
}
"""Runs that a run starts."""

STATUS: Final[dict[str, str]] = {"failing": F, "doomed": K, "killer": F}
"""How runs of a function end, where not completed."""

VALUES: Final[dict[str, list[Any]]] = {
    "steps": [1, 2, 3],
    "blocking": [1, 2],
    "sleeper": [1, 2],
    "waiter": [1, 5],
    "late": [None],
    "signalled": [["said"]],
    "parallel": [1, 2, 3, 4],
    "spread": [1, 2, 3, 4],
    "race": ["quick", 2],
    "parent": [1, 42],
    "sender": [1, 2],
    "retried": [2, 2],
    "failing-failure": ["as it should"],
}
"""What completed runs return, as far as it is the same each time."""


@dataclass(slots=True)
class Journal:
    """What a producer tried, and what it was told was done."""

    tried: set[str] = field(default_factory=set[str])
    sent: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """event id → (event name, key in its data)"""
    flow: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """event id → data, of events for functions with flow control"""
    yearly: bool = False
    """whether the yearly cron was set back"""


class Driver:
    """A producer with a journal; it also does to a run what the run waits for."""

    def __init__(self, client: stepwell.Client, store: Store) -> None:
        self.rng = random.Random(1)
        self.lengths: tuple[int, ...] = (0,)
        """How long the steps of a run may take, ms: one is chosen for each run."""
        self.client = client
        self.store = store
        self.journal = Journal()

    async def send(self, name: str, **data: Any) -> tuple[str, str]:
        """Send one event, noted before and after; (event id, key)."""
        key = secrets.token_hex(6) if "key" not in data else data["key"]
        data.setdefault("ms", self.rng.choice(self.lengths))
        self.journal.tried.add(key)
        (event_id,) = await self.client.send(Event(name=name, data={**data, "key": key}))
        self.journal.sent[event_id] = (name, key)
        if "g" in data:
            self.journal.flow[event_id] = {**data, "key": key}
        return event_id, key

    def run_of(self, event_id: str, fn: str) -> str:
        """The run that an event starts; its id is a function of both."""
        shard = function_shard(APP, fn, len(self.store.shards))
        return run_id(ulid_ms(event_id), event_id, APP, fn, shard)

    async def pending(self, event_id: str, fn: str, kind: bytes) -> bool:
        """Wait until the run waits for something of a kind; False when it ended instead."""
        run = self.run_of(event_id, fn)
        key = self.store.of_run(run).keys.run(run)
        while True:
            flat = await insist(lambda: self.store.server.call(key, "HGETALL", key))
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            if any(name[:2] == b"p:" and value[2:3] == kind for name, value in fields.items()):
                return True
            if fields.get(b"st") in (b"c", b"f", b"k"):
                return False
            await asyncio.sleep(0.02)


async def insist(action: Callable[[], Awaitable[T]]) -> T:
    """Try again while the server is away: what a run waits for has to come."""
    while True:
        try:
            return await action()
        except (ServerError, OSError):
            await asyncio.sleep(0.05)


async def _only(driver: Driver, name: str) -> None:
    await driver.send(f"chaos/{name}")


async def _waiter(driver: Driver) -> None:
    event_id, key = await driver.send("chaos/waiter")
    if await driver.pending(event_id, "waiter", b"w"):
        # Sent once: a wait that was registered before must not miss it.
        await insist(lambda: driver.send("chaos/go", key=key, n=5))


async def _signalled(driver: Driver) -> None:
    event_id, key = await driver.send("chaos/signalled")
    if await driver.pending(event_id, "signalled", b"g"):
        tries, receiver = 0, driver.run_of(event_id, "signalled")

        async def say() -> str | None:
            nonlocal tries
            tries += 1
            return await driver.client.send_signal(f"word-{key}", ["said"])

        run = await insist(say)
        # After a try that may have arrived, its receiver may be through.
        assert run == receiver or (run is None and tries > 1), f"the signal went to {run}"


async def _doomed(driver: Driver) -> None:
    event_id, _ = await driver.send("chaos/doomed")
    if await driver.pending(event_id, "doomed", b"w"):
        await insist(lambda: driver.client.cancel_run(driver.run_of(event_id, "doomed")))


def _plain(name: str) -> Callable[[Driver], Awaitable[None]]:
    async def drive(driver: Driver) -> None:
        await _only(driver, name)

    return drive


SCENARIOS: Final[dict[str, Callable[[Driver], Awaitable[None]]]] = {
    **{name: _plain(name) for name in ALONE},
    "waiter": _waiter,
    "signalled": _signalled,
    "doomed": _doomed,
}


def runs_of(name: str) -> dict[str, int]:
    """How many runs of which function an event must come to, with their offspring; flow_oracle.py judges others."""
    found: dict[str, int] = {}
    for fn in TRIGGERS.get(name, ()):
        found[fn] = found.get(fn, 0) + 1
        for child, count in OFFSPRING.get(fn, {}).items():
            found[child] = found.get(child, 0) + count
    return found
