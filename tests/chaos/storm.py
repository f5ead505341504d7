"""Random disasters over a steady load: processes killed and stopped, the server killed, scripts forgotten, entries delivered twice."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import hiredis

from stepwell.errors import StepwellError
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.fanout import GROUP
from tests.chaos.arena import Arena
from tests.chaos.flow import FLOWS, crowds
from tests.chaos.processes import Child, Kind
from tests.chaos.scenarios import SCENARIOS, Driver

PRODUCERS: Final = 6
FLOW_PRODUCERS: Final = 3
"""Of drives with flow control, which take seconds: their number is what it comes to."""

CROWDED: Final = 3
"""One in so many drives is events for functions under pressure: few keys, low limits."""

PAUSE: Final = (0.15, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A storm: `runs` scenarios at least for `seconds`, its order given by `seed`."""

    seed: int
    seconds: float
    runs: int
    workers: int = 2
    coordinators: int = 2


@dataclass(slots=True)
class Report:
    """What happened: disasters in order, how often a send was refused, how much was sent."""

    disasters: list[str] = field(default_factory=list[str])
    counts: Counter[str] = field(default_factory=Counter[str])
    refused: int = 0
    driven: int = 0


class Storm:
    """The producers and the disasters of one plan in one arena."""

    def __init__(self, here: Arena, server: EmbeddedServer, plan: Plan) -> None:
        self.here = here
        self._server = server
        self.plan = plan
        self.report = Report()
        self._rng = random.Random(plan.seed)
        self._began = time.monotonic()
        self._over = False
        self._groups: dict[Kind, list[Child]] = {"worker": [], "coordinator": []}
        # (weight, disaster): the rarer ones stop everybody.
        self._disasters: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (5, self.kill_worker),
            (4, self.kill_coordinator),
            (3, self.stall_worker),
            (2, self.stall_coordinator),
            (2, self.kill_server),
            (3, self.flush_scripts),
            (4, self.deliver_twice),
        ]

    async def run(self) -> Report:
        """The whole storm; afterwards everybody lives and nobody interferes."""
        self.here.driver.rng = random.Random(self.plan.seed)
        self.here.driver.lengths = (0, 0, 5, 50, 300)
        counts: dict[Kind, int] = {
            "worker": self.plan.workers,
            "coordinator": self.plan.coordinators,
        }
        for kind, count in counts.items():
            for _ in range(count):
                self._groups[kind].append(await self.here.spawn(kind))
        producers = [
            asyncio.create_task(self._produce(random.Random(f"{self.plan.seed}:{n}")))
            for n in range(PRODUCERS)
        ]
        producers += [
            asyncio.create_task(self._produce_flow(random.Random(f"{self.plan.seed}:flow:{n}")))
            for n in range(FLOW_PRODUCERS)
        ]
        while not self._over:
            await asyncio.sleep(self._rng.uniform(*PAUSE))
            weights, choices = zip(*self._disasters, strict=True)
            disaster = self._rng.choices(choices, weights)[0]
            name = disaster.__name__
            self.report.counts[name] += 1
            self.report.disasters.append(f"{time.monotonic() - self._began:.2f} {name}")
            await disaster()
            self._over = self._elapsed >= self.plan.seconds and self.report.driven >= self.plan.runs
        await asyncio.gather(*producers)
        return self.report

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    async def _produce(self, rng: random.Random) -> None:
        names = list(SCENARIOS)
        pace = self.plan.seconds * PRODUCERS / self.plan.runs
        while not self._over:
            began = time.monotonic()
            crowded = rng.randrange(CROWDED) == 0
            if await self._drive(crowds if crowded else SCENARIOS[rng.choice(names)]):
                self.report.driven += 1
            await asyncio.sleep(max(0.0, pace - (time.monotonic() - began)))

    async def _produce_flow(self, rng: random.Random) -> None:
        names = list(FLOWS)
        while not self._over:
            await self._drive(FLOWS[rng.choice(names)])

    async def _drive(self, drive: Callable[[Driver], Awaitable[None]]) -> bool:
        try:
            async with asyncio.timeout(60):
                await drive(self.here.driver)
        except (StepwellError, OSError):
            # Not accepted, as far as the producer knows; the journal has it as tried only.
            self.report.refused += 1
            await asyncio.sleep(0.1)
            return False
        return True

    async def _replace(self, kind: Kind) -> None:
        group = self._groups[kind]
        victim = group.pop(self._rng.randrange(len(group)))
        await asyncio.to_thread(victim.kill)
        group.append(await self.here.spawn(kind))

    async def kill_worker(self) -> None:
        await self._replace("worker")

    async def kill_coordinator(self) -> None:
        await self._replace("coordinator")

    async def _stall(self, kind: Kind, seconds: float) -> None:
        child = self._rng.choice(self._groups[kind])
        self.here.stalled.add(child.pid)
        child.pause()
        await asyncio.sleep(seconds)
        child.resume()

    async def stall_worker(self) -> None:
        """Past its lease: what it held is another's when it wakes."""
        await self._stall("worker", self.here.place.lease_ms / 1000 * 1.6)

    async def stall_coordinator(self) -> None:
        """Past the time after which its entries are claimed."""
        await self._stall("coordinator", self.here.place.claim_ms / 1000 * 2)

    async def kill_server(self) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.sleep(self._rng.uniform(0.0, 1.0))
        await asyncio.to_thread(self._server.restart)

    async def flush_scripts(self) -> None:
        await self._command("FUNCTION", "FLUSH")

    async def deliver_twice(self) -> None:
        """Every entry that is still there is read again, beside whoever has it in hand."""
        for shard in self.here.store.shards:
            for stream in (shard.keys.events, shard.keys.outbox):
                await self._command("XGROUP", "SETID", stream, GROUP, "0")

    async def _command(self, *args: Any) -> None:
        try:
            await asyncio.to_thread(self._server.command, *args)
        except hiredis.ReplyError:
            pass  # no coordinator has made this group yet
