"""Cancel many runs: the creation indexes of the functions asked for are paged through, newest first, in bounded memory. Before them
their open debounces and batches, each as the run that it will be.

Nothing is stored about it: what it did not reach when it was interrupted, the same call finds again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from stepwell.errors import FunctionNotFoundError
from stepwell.gateway import BulkQuery
from stepwell.ids import ulid_ms
from stepwell.records import BulkCancel, RunStatus, run_status
from stepwell.serde.values import pack
from stepwell_engine import views
from stepwell_engine.directory import Directory, Registered
from stepwell_engine.expressions import Program, compile  # noqa: A004
from stepwell_engine.listing import Place, next_places
from stepwell_engine.loop import time_ms
from stepwell_engine.store.store import Store
from stepwell_engine.windows import open_windows, window_event

_PAGE: Final = 100
_SHOWN: Final = 1_000
_GRACE_MS: Final = 10_000
_MOMENT_MS: Final = 1_000  # what was sent just now is meant too, whatever clock a shard has


async def cancel_runs(store: Store, directory: Directory, query: BulkQuery) -> BulkCancel:
    """Cancel the runs that `query` describes, or only count them. Raises FunctionNotFoundError, ServerError, ExpressionError."""
    functions = [
        f
        for f in await directory.all()
        if query.app_id in (None, f.app_id) and query.fn_id in (None, f.fn_id)
    ]
    program = None if query.if_exp is None else compile(query.if_exp, variables=("event",))
    if query.fn_id is not None and not functions:
        of = "" if query.app_id is None else f" of app {query.app_id!r}"
        raise FunctionNotFoundError(
            f"no worker has registered function {query.fn_id!r}{of}; `stepwell functions` lists those that are"
        )
    # Runs that are created meanwhile are not among them, or it might never end.
    before = await _now(store) + _MOMENT_MS if query.before_ms is None else query.before_ms
    count, ids = 0, list[str]()
    async for run in _gathering(store, functions, before, query, program):
        if query.limit is not None and count >= query.limit:
            break
        if await _cancel(store, run, query):
            count += 1
            ids += [run][: _SHOWN - len(ids)]
    after: Place | None = Place(before, "")
    while after is not None and (query.limit is None or count < query.limit):
        places = [place for place, _ in await next_places(store, functions, after, _PAGE)]
        after = places[-1] if len(places) == _PAGE else None
        if places and places[-1].score < query.after_ms:
            places = [place for place in places if place.score >= query.after_ms]
            after = None
        wanted = await _wanted(store, places, query, program)
        if query.limit is not None:
            wanted = wanted[: query.limit - count]
        done = await asyncio.gather(*(_cancel(store, run, query) for run in wanted))
        found = [run for run, cancelled in zip(wanted, done, strict=True) if cancelled]
        count += len(found)
        ids += found[: _SHOWN - len(ids)]
    return BulkCancel(count=count, run_ids=tuple(ids), dry_run=query.dry_run)


async def _now(store: Store) -> int:
    root = store.keys(0).root
    return time_ms(await store.server.call(root, "TIME")) + store.clock.offset_ms


async def _gathering(
    store: Store,
    functions: Sequence[Registered],
    before_ms: int,
    query: BulkQuery,
    program: Program | None,
) -> AsyncIterator[str]:
    """The runs of open windows that `query` describes; they have no status yet."""
    if query.status is not None:
        return
    async for window in open_windows(store, functions):
        if not query.after_ms <= ulid_ms(window.run_id) < before_ms:
            continue
        if program is not None:
            event = await window_event(store, window)
            if event is None or not program.matches(event.to_dict(), now_ms=store.clock.now_ms()):
                continue
        yield window.run_id


async def _wanted(
    store: Store, places: Sequence[Place], query: BulkQuery, program: Program | None
) -> list[str]:
    names = ("st", "rs") if program is None else ("st", "rs", "e")
    keys = [store.of_run(place.run_id).keys.run(place.run_id) for place in places]
    rows = await asyncio.gather(*(store.server.call(key, "HMGET", key, *names) for key in keys))
    now = store.clock.now_ms()
    return [
        place.run_id
        for place, row in zip(places, rows, strict=True)
        if row[0] is not None and _matches(row, query, program, now)
    ]


def _matches(
    row: Sequence[bytes | None], query: BulkQuery, program: Program | None, now_ms: int
) -> bool:
    letter, place, *blobs = row
    status = run_status((letter or b"").decode(), (place or b"").decode())
    if status.ended or query.status not in (None, status):
        return False
    if status is RunStatus.CANCELLING and not query.children:
        return False  # asked already
    if program is None:
        return True
    event = views.trigger_event({b"e": blobs[0]}) if blobs[0] else None
    return event is not None and program.matches(event.to_dict(), now_ms=now_ms)


async def _cancel(store: Store, run: str, query: BulkQuery) -> bool:
    """Cancel one; False when it ended meanwhile."""
    if query.dry_run:
        return True
    error = pack(views.cancelled_error(query.reason, query.why))
    letter = await store.of_run(run).cancel(
        run, error=error, grace_ms=_GRACE_MS, children=query.children
    )
    return letter in ("k", "x")
