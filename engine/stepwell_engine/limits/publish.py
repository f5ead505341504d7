"""What the gates of functions allow, published on their shards: lease.lua looks it up, so a changed limit holds at once for queued work."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from stepwell_engine.limits.concurrency import Concurrency
from stepwell_engine.limits.throttle import Throttle
from stepwell_engine.store.transitions import Arg

if TYPE_CHECKING:
    from stepwell_engine.store.store import Store
    from stepwell_engine.store.transitions import Transitions
    from stepwell_engine.triggers import RegisteredFunction

_PAGE: Final = 200
_LET_GO: Final = 500
"""Parked keys of a function that one call lets try again."""


async def publish_gates(
    store: "Store", functions: Iterable["RegisteredFunction"], version: int
) -> None:
    """Publish the gates of all functions as of a version of the registry. Raises ServerError.

    To be done before anything is planned by that version. A later version's word stays.
    """
    shards: dict[int, list[Sequence[Arg]]] = {}
    for function in functions:
        shards.setdefault(function.shard, []).append(_row(function, len(store.shards)))
    # With several shards they are then told that all of them know: only from then on a lower limit of a shared gate is sure to hold.
    for told in (False, True)[: len(store.shards)]:
        await asyncio.gather(
            *(_publish(store.shards[s], rows, version, told=told) for s, rows in shards.items())
        )


async def _publish(
    shard: "Transitions", rows: list[Sequence[Arg]], version: int, *, told: bool
) -> None:
    for start in range(0, len(rows), _PAGE):
        page: list[Sequence[Arg]] = list(rows[start : start + _PAGE])
        while page:
            left: set[str] = set(await shard.configure(version, page, most=_LET_GO, told=told))
            page = [row for row in page if row[0] in left]


def _row(function: "RegisteredFunction", shards: int) -> Sequence[Arg]:
    entries = Concurrency.read(function.config)
    limits: list[Arg] = [e.limit or "" if isinstance(e.limit, int) else "*" for e in entries[:2]]
    limits += [""] * (2 - len(limits))
    throttle = Throttle.read(function.config)
    rate: tuple[Arg, Arg] = ("", "") if throttle is None else (throttle.interval, throttle.burst)
    gated = function.flow is not None and function.flow.gated
    return (function.number, function.app if gated else "", *limits, *rate, shards)
