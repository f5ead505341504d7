"""Drives of functions with flow control: what is sent, in which order, and what has to have come about in between."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

from stepwell.ids import function_shard
from stepwell_engine import luapack
from stepwell_engine.cron import cron_identity
from tests.chaos.bodies import APP
from tests.chaos.flow_app import YEARLY
from tests.chaos.scenarios import SCENARIOS, Driver, insist

CROWDS: Final = ("crowd", "gush", "lone", "heap")
"""Functions for many events of few keys."""

ENDED: Final = (b"c", b"f", b"k")
KEYS: Final = 5
_SHORT: Final = 30  # ms a step takes whose overlap with another would be seen
_APART_S: Final = 0.003  # events of one ms have no order
SINCE_MS: Final = 1_656_633_600_000
"""July 2022: the year's beginnings since then are what the yearly cron has missed."""


async def _send(driver: Driver, name: str, g: str, **data: Any) -> str:
    """An event's id; when the server is away, another one is sent."""
    event_id, _ = await insist(lambda: driver.send(f"chaos/{name}", g=g, **data))
    await asyncio.sleep(_APART_S)
    return event_id


async def _first(driver: Driver, name: str, g: str, **data: Any) -> str:
    """The first event of a drive, that nothing depends on: it may be refused."""
    event_id, _ = await driver.send(f"chaos/{name}", g=g, **data)
    await asyncio.sleep(_APART_S)
    return event_id


async def _decided(driver: Driver, event_id: str, fn: str) -> None:
    """Wait until the event has its run, or another outcome."""
    run = driver.run_of(event_id, fn)
    keys = driver.store.of_run(run).keys
    for_event, for_run = keys.build("outcome", event_id), keys.run(run)
    found = 0
    while not found:
        await asyncio.sleep(0.02)
        found = await insist(
            lambda: driver.store.server.call(for_run, "EXISTS", for_run, for_event)
        )


async def _ended(driver: Driver, event_id: str, fn: str) -> None:
    run = driver.run_of(event_id, fn)
    key = driver.store.of_run(run).keys.run(run)
    status = b""
    while status not in ENDED:
        await asyncio.sleep(0.02)
        status = await insist(lambda: driver.store.server.call(key, "HGET", key, "st"))


def _several(name: str, count: int) -> Callable[[Driver], Awaitable[None]]:
    """That many events of one key, one after the other."""

    async def drive(driver: Driver) -> None:
        g = secrets.token_hex(6)
        for seq in range(count):
            send = _send if seq else _first
            await send(driver, name, g, seq=seq, ms=_SHORT)

    return drive


async def _single(driver: Driver) -> None:
    g = secrets.token_hex(6)
    holder = await _first(driver, "single", g)
    await driver.pending(holder, "single", b"w")
    await _decided(driver, await _send(driver, "single", g, free=True), "single")
    await _send(driver, "release", g)


async def _replaced(driver: Driver) -> None:
    g = secrets.token_hex(6)
    holder = await _first(driver, "replaced", g)
    await driver.pending(holder, "replaced", b"w")
    await _send(driver, "replaced", g, free=True)


async def _stopped(driver: Driver) -> None:
    g = secrets.token_hex(6)
    event_id = await _first(driver, "stopped", g)
    await driver.pending(event_id, "stopped", b"w")
    await _send(driver, "stop", g)


async def _stopped_at_once(driver: Driver) -> None:
    """The event that cancels may be handled before the run is there."""
    g = secrets.token_hex(6)
    await _first(driver, "stopped", g)
    await _send(driver, "stop", g)


async def _tardy(driver: Driver) -> None:
    g = secrets.token_hex(6)
    holder = await _first(driver, "tardy", g)
    await driver.pending(holder, "tardy", b"w")
    await _ended(driver, await _send(driver, "tardy", g, free=True), "tardy")
    await _send(driver, "release", g)


async def _overdue(driver: Driver) -> None:
    await _first(driver, "overdue", secrets.token_hex(6))


async def _ranked(driver: Driver) -> None:
    g = secrets.token_hex(6)
    holder = await _first(driver, "ranked", g, rank=0)
    await driver.pending(holder, "ranked", b"w")
    for rank in (0, 100, 50):
        await _decided(driver, await _send(driver, "ranked", g, rank=rank, free=True), "ranked")
    await _send(driver, "release", g)


async def _yearly(driver: Driver) -> None:
    """As if nobody had been there for years: what the state says is made old, so the ticks since then are due."""
    driver.journal.yearly = True
    store = driver.store
    call, home = store.server.call, store.keys(0)
    field = f"{APP}\0yearly"
    number = luapack.read(
        await insist(lambda: call(home.root, "HGET", home.build("functions"), field))
    )[0]
    keys = store.keys(function_shard(APP, "yearly", len(store.shards)))
    cron, handled = keys.build("cron", str(number)), f"{SINCE_MS:013d}"
    await insist(lambda: call(cron, "HSET", cron, cron_identity(YEARLY, None), handled))
    await insist(lambda: call(cron, "ZADD", keys.build("due"), SINCE_MS, f"%{number}"))


async def crowds(driver: Driver) -> None:
    """One of each, of one of few keys."""
    g = f"tenant-{driver.rng.randrange(KEYS)}"
    for name in CROWDS:
        await _first(driver, name, g)


FLOWS: Final[dict[str, Callable[[Driver], Awaitable[None]]]] = {
    **{name: _several(name, 2) for name in ("keyed", "held", "rated", "once", "shared")},
    **{name: _several(name, 2) for name in ("bounced", "collected", "sized", "timed")},
    "throttled": _several("throttled", 3),
    "single": _single,
    "replaced": _replaced,
    "stopped": _stopped,
    "stopped-at-once": _stopped_at_once,
    "tardy": _tardy,
    "overdue": _overdue,
    "ranked": _ranked,
    "yearly": _yearly,
}

ALL: Final = {**SCENARIOS, **FLOWS}
