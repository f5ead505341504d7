"""One namespace under fire: its processes, its producer, its proxy, and the verdict."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from stepwell_engine.embedded import EmbeddedCluster, EmbeddedServer
from stepwell_engine.registry import register
from stepwell_engine.store.store import Store
from tests.chaos import flow_oracle, oracle, witness
from tests.chaos.app import make_client
from tests.chaos.flow import ALL
from tests.chaos.processes import Child, Kind, Place
from tests.chaos.proxy import Proxy, Strike
from tests.chaos.scenarios import Driver

AnyServer: TypeAlias = EmbeddedServer | EmbeddedCluster
Victim = Literal["worker", "coordinator", "producer"]

KINDS: Final[tuple[Kind, ...]] = ("coordinator", "worker")
SETTLED_WITHIN: Final = 45.0
STALL: Final = 1.6
"""Length of a stall in leases: its work is another's by then."""


class Arena:
    """A namespace of its own on a shared server; its functions are registered, nobody runs yet."""

    def __init__(self, place: Place, store: Store) -> None:
        self.place = place
        self.store = store
        self.client = make_client(place.url, place.namespace, place.shards)
        self.driver = Driver(self.client, store)
        self.children: list[Child] = []
        self.stalled: set[int] = set()

    def connect(self, url: str) -> None:
        """Let the producer take another way to the server."""
        self.client = make_client(url, self.place.namespace, self.place.shards)
        self.driver.client = self.client

    async def spawn(self, kind: Kind, url: str | None = None) -> Child:
        """Start a process, through a proxy when `url` names one."""
        place = self.place if url is None else replace(self.place, url=url)
        child = await asyncio.to_thread(Child, kind, place)
        self.children.append(child)
        return child

    async def verdict(self, within: float = SETTLED_WITHIN) -> list[str]:
        """Wait for the end and judge; [] = all is right."""
        problems: list[str] = []
        if not await oracle.settle(self.store, self.driver.journal, within):
            problems.append(f"not everything had ended after {within:g} s")
        lines = witness.read(self.place.witness)
        found = await oracle.verify(self.store, self.driver.journal, lines, stalled=self.stalled)
        found += await flow_oracle.verify(self.store, self.client, self.driver.journal, lines)
        return problems + found


@asynccontextmanager
async def arena(server: AnyServer, folder: Path, *, lease_ms: int = 1_000) -> AsyncIterator[Arena]:
    """An `Arena`; its processes are killed in the end. STEPWELL_TEST_SHARDS: how many shards it has."""
    shards = int(os.environ.get("STEPWELL_TEST_SHARDS", "4"))
    place = Place(server.url, f"x{secrets.token_hex(4)}", shards, folder, lease_ms=lease_ms)
    store = await Store.open(place.url, namespace=place.namespace, shards=shards)
    here = Arena(place, store)
    try:
        rows = [(f.app_id, f.fn_id, f.config()) for f in here.client.functions.values()]
        await register(store, rows, 1)
        yield here
    finally:
        for child in here.children:
            await asyncio.to_thread(child.kill)
        await here.client.aclose()
        await store.aclose()


async def ordeal(
    server: AnyServer, folder: Path, scenario: str, victim: Victim, strike: Strike | None
) -> tuple[Proxy, list[str]]:
    """Run one scenario with one strike at the victim, which is started again when it was killed."""
    async with arena(server, folder) as here:
        proxy = Proxy([part.port for part in _parts(server)], strike)
        await proxy.start()
        revival: asyncio.Task[None] | None = None
        try:
            if victim == "producer":
                here.connect(proxy.url)
            if victim == "worker" and strike is not None and strike.how == "stall":
                # Whoever took the work must still be at it when the victim comes back with its write.
                here.driver.lengths = (here.place.lease_ms * 2 // 5,)
            driving = asyncio.create_task(_drive(here, scenario))
            for kind in KINDS:
                if kind == victim:
                    struck = await here.spawn(kind, proxy.url)
                    _aim(here, proxy, struck)
                    revival = asyncio.create_task(_revive(here, proxy, kind, strike))
                else:
                    await here.spawn(kind)
            await driving
            problems = await here.verdict()
        except TimeoutError:
            problems = [f"the driver was stuck; {await here.verdict(0.1)}"]
        finally:
            if revival is not None:
                revival.cancel()
            await proxy.stop()
        if problems:
            log = here.place.log.read_text()[-6000:] if here.place.log.exists() else ""
            seen = here.place.witness.read_text() if here.place.witness.exists() else ""
            problems += [f"struck at: {proxy.struck_at}", f"witness:\n{seen}", f"log:\n{log}"]
        else:
            for path in (here.place.log, here.place.witness):
                path.unlink(missing_ok=True)
        return proxy, problems


def _parts(server: AnyServer) -> Sequence[EmbeddedServer]:
    return server.servers if isinstance(server, EmbeddedCluster) else (server,)


async def _drive(here: Arena, scenario: str) -> None:
    async with asyncio.timeout(SETTLED_WITHIN):
        await ALL[scenario](here.driver)


def _aim(here: Arena, proxy: Proxy, struck: Child) -> None:
    async def stall() -> None:
        here.stalled.add(struck.pid)
        struck.pause()
        await asyncio.sleep(here.place.lease_ms / 1000 * STALL)

    proxy.kill, proxy.stall, proxy.resume = struck.kill, stall, struck.resume


async def _revive(here: Arena, proxy: Proxy, kind: Kind, strike: Strike | None) -> None:
    """Another one takes the place of a victim that is killed, or stands beside one that is stopped."""
    await proxy.fired.wait()
    if strike is not None and strike.how != "cut":
        await here.spawn(kind)
