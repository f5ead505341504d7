"""Runs, newest first, over many functions: a merge of their creation indexes in bounded pages."""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from stepwell.errors import ConfigError
from stepwell.gateway import RunQuery
from stepwell.ids import function_shard, is_ulid
from stepwell.records import Page, RunSummary, run_status
from stepwell_engine import views
from stepwell_engine.directory import Directory, Registered
from stepwell_engine.store.store import Store

_MAX_SCANNED: Final = 2_000
"""Runs looked at for one page; a page of a rare status may be short, and has a cursor."""


class Place(NamedTuple):
    """A run in the order of the list: by creation, then id, both falling."""

    score: float
    run_id: str


async def list_runs(store: Store, directory: Directory, query: RunQuery) -> Page[RunSummary]:
    """One page of runs. Raises ConfigError for a cursor that no page gave."""
    functions = [
        f
        for f in await directory.all()
        if query.app_id in (None, f.app_id) and query.fn_id in (None, f.fn_id)
    ]
    after = decode_cursor(query.cursor)
    found: list[RunSummary] = []
    scanned = 0
    while True:
        places = await next_places(store, functions, after, query.limit)
        for start in range(0, len(places), query.limit):
            chunk = places[start : start + query.limit]
            rows = await _read(store, [place.run_id for place, _ in chunk])
            for (place, function), row in zip(chunk, rows, strict=True):
                after = place
                if row is not None and _wanted(row, query):
                    found.append(views.summary(place.run_id, function.fn_id, row))
                    if len(found) == query.limit:
                        return Page(tuple(found), encode_cursor(after))
        scanned += len(places)
        if len(places) < query.limit:
            return Page(tuple(found))
        if scanned >= _MAX_SCANNED:
            assert after is not None
            return Page(tuple(found), encode_cursor(after))


def encode_cursor(place: Place) -> str:
    """A place as opaque text."""
    return urlsafe_b64encode(f"{place.score:.0f} {place.run_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> Place | None:
    """The place in a cursor, None for the start. Raises ConfigError."""
    if not cursor:
        return None
    try:
        score, _, run_id = (
            urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(" ")
        )
        if not is_ulid(run_id):
            raise ValueError(run_id)
        return Place(float(score), run_id)
    except (Base64Error, ValueError) as error:
        raise ConfigError(
            f"cursor={cursor!r}: not a cursor; pass the .cursor of the page before, or leave it out"
        ) from error


async def next_places(
    store: Store, functions: Sequence[Registered], after: Place | None, limit: int
) -> list[tuple[Place, Registered]]:
    """The `limit` places after `after` over all functions."""
    tails = await asyncio.gather(*(_tail(store, f, after, limit) for f in functions))
    merged = [(place, f) for f, tail in zip(functions, tails, strict=True) for place in tail]
    merged.sort(key=lambda item: item[0], reverse=True)
    return merged[:limit]


async def _tail(store: Store, function: Registered, after: Place | None, limit: int) -> list[Place]:
    """The `limit` places after `after` in one function's index."""
    shard = function_shard(function.app_id, function.fn_id, len(store.shards))
    key = store.keys(shard).build("fn_runs", function.number)
    highest = "+inf" if after is None else f"{after.score:.0f}"
    out: list[Place] = []
    offset = 0
    while len(out) < limit:
        reply: list[Any] = await store.server.call(
            key, "ZREVRANGEBYSCORE", key, highest, "-inf", "WITHSCORES", "LIMIT", offset, limit
        )
        places = [Place(float(s), m.decode()) for m, s in zip(reply[::2], reply[1::2], strict=True)]
        # Runs of the very ms of `after` come first again: its batch may be longer than a page.
        out += [place for place in places if after is None or place < after]
        offset += limit
        if len(places) < limit:
            break
    return out[:limit]


async def _read(store: Store, run_ids: Sequence[str]) -> list[dict[bytes, bytes] | None]:
    keys = [store.of_run(run_id).keys.run(run_id) for run_id in run_ids]
    rows = await asyncio.gather(*(store.server.call(k, "HMGET", k, *views.SUMMARY) for k in keys))
    return [
        {n: v for n, v in zip(views.SUMMARY, row, strict=True) if v is not None} if row[0] else None
        for row in rows
    ]


def _wanted(row: dict[bytes, bytes], query: RunQuery) -> bool:
    if query.status is None:
        return True
    return run_status(row[b"st"].decode(), row.get(b"rs", b"").decode()) is query.status
