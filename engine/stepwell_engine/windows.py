"""Open debounces and batches as things that can be found: by function, with the run and the event that each will have."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

from stepwell.events import Event
from stepwell.ids import function_shard, ulid_ms
from stepwell_engine.directory import Registered
from stepwell_engine.entries import blob_event
from stepwell_engine.store.keys import Keys
from stepwell_engine.store.store import Store

_PAGE: Final = 1_000
_READ: Final = 100
_STAMPS: Final = 32
"""Characters before a gathered event: its `ts` and when it was accepted (limits/window.lua)."""


class Window(NamedTuple):
    """An open window: the run that it will be, and where it is."""

    run_id: str
    keys: Keys
    id: str
    gathers: str


async def open_windows(store: Store, functions: Sequence[Registered]) -> AsyncIterator[Window]:
    """The open windows of functions, in no order. Raises ServerError."""
    shards: dict[int, set[str]] = {}
    for f in functions:
        shard = function_shard(f.app_id, f.fn_id, len(store.shards))
        shards.setdefault(shard, set()).add(f.number)
    for shard, numbers in shards.items():
        keys = store.keys(shard)
        ids = await _ids(store, keys, numbers)
        for start in range(0, len(ids), _READ):
            part = ids[start : start + _READ]
            names = [keys.build("window", id_) for id_ in part]
            call = store.server.call
            rows = await asyncio.gather(*(call(name, "HMGET", name, "r", "all") for name in names))
            for id_, (run, gathers) in zip(part, rows, strict=True):
                if run is not None:
                    yield Window(run.decode(), keys, id_, gathers.decode())


async def _ids(store: Store, keys: Keys, numbers: set[str]) -> list[str]:
    """The windows' ids, as `due` has them."""
    key = keys.build("due")
    found: set[str] = set()
    cursor = b"0"
    while True:
        reply: list[Any] = await store.server.call(
            key, "ZSCAN", key, cursor, "MATCH", "~*", "COUNT", _PAGE
        )
        cursor = reply[0]
        for item in reply[1][::2]:
            number, _, id_ = item[1:].decode().partition(":")
            if number in numbers:
                found.add(id_)
        if cursor == b"0":
            return sorted(found)


async def window_event(store: Store, window: Window) -> Event | None:
    """The event that would trigger its run if it ended now; None when it has ended. Raises ServerError, ValueError."""
    call = store.server.call
    if not window.gathers:
        key = window.keys.build("window", window.id)
        blob: bytes | None = await call(key, "HGET", key, "e")
    else:
        key = window.keys.build("gathered", window.id)
        rows: list[bytes] = await call(key, "LRANGE", key, 0, -1)
        row = (max if window.gathers == "c" else min)(rows, key=lambda r: r[:_STAMPS], default=None)
        blob = row and row[_STAMPS:]
    return blob_event(blob, ulid_ms(blob[:26].decode())) if blob else None
