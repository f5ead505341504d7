"""What `stepwell doctor` finds out: the server's fitness, the processes, the backlog, and whether the data holds together."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from redis.exceptions import ResponseError

from stepwell.clock import Clock
from stepwell_engine.audit import Violation, audit
from stepwell_engine.deliver import describe, undelivered
from stepwell_engine.explain import count
from stepwell_engine.fanout import GROUP
from stepwell_engine.registry import Registry
from stepwell_engine.store.server_info import ServerInfo
from stepwell_engine.store.store import Store, risks

SKEW_MS: Final = 1_000
"""Difference of two clocks above which times of runs and of servers can't be compared by eye."""

STUCK_MS: Final = 60_000
"""Age of an unhandled event above which nobody can be reading."""

_ALIVE_MS: Final = 30_000
_FULL: Final = 0.9
_SHOWN: Final = 20
_AUDITS: Final = 3


class Level(StrEnum):
    """How much a finding matters; a `PROBLEM` makes `stepwell doctor` fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: how it is, and, where it is wrong, what to do."""

    level: Level
    check: str
    text: str


async def examine(store: Store, clock: Clock, *, audit: bool = True) -> list[Finding]:
    """All findings, in the order of a report. Raises ServerError.

    `clock` is this machine's, to compare. `audit` reads every key of the namespace.

        problems = [f for f in await examine(store, SystemClock()) if f.level is Level.PROBLEM]
    """
    found: list[Finding] = []
    for info in await store.server.check_server():
        found += _server(info, clock.now_ms())
    found += _masters(await _clock_spread_ms(store))
    found.append(Finding(Level.OK, "namespace", f"{store.namespace!r}, {_shards(store)}"))
    found += await _processes(store)
    for shard in range(len(store.shards)):
        found += await _backlog(store, shard)
        found += await _undelivered(store, shard)
    if audit:
        found += await _data(store)
    return found


def _server(info: ServerInfo, here_ms: int) -> Iterator[Finding]:
    at = str(info.endpoint)
    mode = ", cluster" if info.cluster else ""
    yield Finding(Level.OK, "server", f"{at}: {info.product} {info.product_version}{mode}")
    dangers = risks(info)
    for danger in dangers:
        yield Finding(Level.PROBLEM, "settings", danger)
    if not dangers:
        sync = f", appendfsync {info.appendfsync}" if info.appendfsync else ""
        yield Finding(Level.OK, "settings", f"append-only file{sync}; keys are never evicted")
    yield _memory(info)
    skew = abs(info.clock_ms - here_ms)
    text = f"{at} and this machine differ by {skew:,} ms"
    if skew > SKEW_MS:
        hint = "; run NTP on both: steps are stamped by workers, timers by the server"
        yield Finding(Level.WARNING, "clock", text + hint)
    else:
        yield Finding(Level.OK, "clock", text)


def _memory(info: ServerInfo) -> Finding:
    used = f"{info.used_memory / 2**20:,.1f} MiB used"
    if not info.maxmemory:
        return Finding(Level.OK, "memory", f"{used}, no maxmemory set")
    text = f"{used} of {info.maxmemory / 2**20:,.1f} MiB"
    if info.used_memory > _FULL * info.maxmemory:
        hint = "; raise maxmemory or shorten the coordinators' --retention: a full server refuses"
        return Finding(Level.PROBLEM, "memory", text + hint)
    return Finding(Level.OK, "memory", text)


async def _clock_spread_ms(store: Store) -> int:
    replies = await store.server.each_master("TIME")
    times = [int(seconds) * 1000 + int(micros) // 1000 for seconds, micros in replies.values()]
    return max(times) - min(times)


def _masters(spread_ms: int) -> Iterator[Finding]:
    if spread_ms > SKEW_MS:
        text = f"the masters differ by {spread_ms:,} ms: run NTP on them, timers follow each one's"
        yield Finding(Level.PROBLEM, "clock", text)


def _shards(store: Store) -> str:
    count = len(store.shards)
    return "1 shard" if count == 1 else f"{count} shards"


async def _processes(store: Store) -> list[Finding]:
    registry = Registry(store)
    await registry.refresh()
    functions = len(registry.all())
    home = store.keys(0)
    call = store.server.call
    now = _ms(await call(home.root, "TIME")) + store.clock.offset_ms
    workers = await call(home.root, "ZCOUNT", home.build("workers"), now, "+inf")
    coordinators = await _coordinators(store)
    return [
        Finding(Level.OK, "functions", f"{functions} registered"),
        _some("workers", workers, "nothing runs until one starts: stepwell worker module:client"),
        _some("coordinators", coordinators, "no event starts a run: stepwell coordinator"),
    ]


def _some(check: str, count: int, otherwise: str) -> Finding:
    if count:
        return Finding(Level.OK, check, f"{count} alive")
    return Finding(Level.WARNING, check, f"none alive; {otherwise}")


async def _coordinators(store: Store) -> int:
    """How many of the streams' consumers have asked lately."""
    rows = await _consumers(store, store.keys(0).events)
    fields = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
    return sum(1 for row in fields if int(row[b"idle"]) < _ALIVE_MS)


async def _consumers(store: Store, stream: str) -> list[list[Any]]:
    try:
        rows: list[list[Any]] = await store.server.call(stream, "XINFO", "CONSUMERS", stream, GROUP)
    except ResponseError:
        return []  # no stream or no group: no coordinator has ever been there
    return rows


async def _backlog(store: Store, shard: int) -> list[Finding]:
    keys = store.keys(shard)
    call = store.server.call
    now = _ms(await call(keys.root, "TIME"))
    found: list[Finding] = []
    for check, stream in (("events", keys.events), ("outbox", keys.outbox)):
        length, first = await asyncio.gather(
            call(keys.root, "XLEN", stream),
            call(keys.root, "XRANGE", stream, "-", "+", "COUNT", 1),
        )
        age = now - int(first[0][0].partition(b"-")[0]) if first else 0
        text = f"shard {shard}: {length:,} not handled yet"
        if age > STUCK_MS:
            hint = f", the oldest for {age / 1000:,.0f} s; start a coordinator, or read its log"
            found.append(Finding(Level.PROBLEM, check, text + hint))
        elif length:
            found.append(Finding(Level.OK, check, text))
    return found


async def _undelivered(store: Store, shard: int) -> list[Finding]:
    keys = store.keys(shard)
    number = await store.server.call(keys.root, "HLEN", keys.build("undelivered"))
    if not number:
        return []
    found: list[Finding] = []
    async for kept in undelivered(store, shard):
        text = f"shard {shard}: {describe(kept.flat)} can't be delivered: {kept.error}"
        found.append(Finding(Level.PROBLEM, "outbox", text))
        if len(found) == _SHOWN:
            break
    hint = "coordinators try again every minute; update them all, then mend what the error names"
    more = f"shard {shard}: {count(number, 'message')} set aside; {hint}"
    return [*found, Finding(Level.PROBLEM, "outbox", more)]


async def _data(store: Store) -> list[Finding]:
    found: list[Finding] = []
    for shard in range(len(store.shards)):
        broken = await _lasting(store, shard)
        found += [Finding(Level.PROBLEM, "data", str(each)) for each in broken[:_SHOWN]]
        if len(broken) > _SHOWN:
            more = f"shard {shard}: and {len(broken) - _SHOWN:,} more"
            found.append(Finding(Level.PROBLEM, "data", more))
    if not found:
        text = "every key has an owner or a TTL, every run can go on or has ended"
        found.append(Finding(Level.OK, "data", text))
    return found


async def _lasting(store: Store, shard: int) -> Sequence[Violation]:
    """What every audit in a row says: a run that moves between two looks is not broken."""
    keys = store.keys(shard)
    broken = await audit(store.server, keys)
    for _ in range(_AUDITS - 1):
        if not broken:
            break
        again = set(await audit(store.server, keys))
        broken = [each for each in broken if each in again]
    return broken


def _ms(reply: Sequence[bytes]) -> int:
    return int(reply[0]) * 1000 + int(reply[1]) // 1000
