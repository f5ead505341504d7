"""The end of a run, or that none began, as an event: built only when a function or a wait asks for it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from stepwell.events import Event, encode_event
from stepwell.ids import ulid_ms, ulid_time_chars
from stepwell.serde.values import unpack
from stepwell_engine import luapack, views
from stepwell_engine.entries import SKIPPED_EVENT, Entry, blob_event
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store

_FIELDS: tuple[str, ...] = ("f", "a", "e", "o", "er", "pa", "st", "eb", "el")
_TAILS: Final = {
    "inngest/function.finished": "F0",
    "inngest/function.failed": "F1",
    "inngest/function.cancelled": "F2",
    SKIPPED_EVENT: "F3",
}
_STATUS: Final = {b"c": "Completed", b"f": "Failed", b"k": "Cancelled"}


async def load_ends(
    store: Store, registry: Registry, shard: int, entries: Sequence[Entry]
) -> list[Entry]:
    """The events that ends refer to, one for each run that is still there. Raises ServerUnavailableError."""
    keys = store.keys(shard)
    entries = [entry._replace(run=run) for entry in entries for run in entry.ended]
    calls = [store.server.call(keys.root, "HMGET", keys.run(e.run), *_FIELDS) for e in entries]
    replies: list[list[bytes | None]] = await asyncio.gather(*calls)
    events: list[Entry] = []
    for entry, values in zip(entries, replies, strict=True):
        run = dict(zip(_FIELDS, values, strict=True))
        if run["st"] is not None and entry.name in _TAILS:
            events.append(_filled(entry, run, registry))
    return events


def end_id(name: str, run: str, ms: int) -> str:
    """The id of the event that says a run ended: the same on every delivery."""
    return ulid_time_chars(ms) + run[10:24] + _TAILS[name]


def skipped(entry: Entry, registry: Registry) -> Entry:
    """A skip, made whole. Raises ValueError for bytes that say nothing."""
    run, number, reason, other, *more = luapack.read(entry.extra)
    others: list[bytes] = more[0] if more else []
    blobs = [*others, entry.data] if more and more[1] else [entry.data, *others]
    # As of a run that ends: the event that would have triggered it, and all that it would have had.
    told = blob_event(entry.data, ulid_ms(entry.data[:26].decode())).to_dict()
    events = [blob_event(blob, ulid_ms(blob[:26].decode())).to_dict() for blob in blobs]
    function = registry.numbered(number.decode())
    ms = entry.us // 1000
    data = {
        "function_id": function.id if function else "",
        "fn_id": function.fn if function else "",
        "app_id": function.app if function else "",
        "reason": reason.decode(),
        "event": told,
        "events": events,
        "run_id": other.decode() or None,
    }
    event = Event(entry.name, data, ts=ms)
    return entry._replace(
        id=end_id(entry.name, run.decode(), ms), data=encode_event(event), extra=b""
    )


def _filled(entry: Entry, run: Mapping[str, bytes | None], registry: Registry) -> Entry:
    ms = entry.us // 1000
    id_ = end_id(entry.name, entry.run, ms)
    event = Event(entry.name, _data(entry.run, run, registry), ts=ms)
    return entry._replace(id=id_, data=encode_event(event))


def _data(run_id: str, run: Mapping[str, bytes | None], registry: Registry) -> dict[str, Any]:
    function = registry.numbered((run["f"] or b"").decode())
    stored = {name.encode(): value for name, value in run.items() if value is not None}
    event = views.trigger_event(stored)
    status = run["st"] or b""
    data: dict[str, Any] = {
        "function_id": function.id if function else "",
        "fn_id": function.fn if function else "",
        "app_id": function.app if function else "",
        "run_id": run_id,
        "event": event.to_dict() if event else None,
        "events": [each.to_dict() for each in views.trigger_events(stored)],
        "_inngest": {"status": _STATUS.get(status, "Unknown")},
    }
    if status == b"c":
        data["result"] = unpack(run["o"]) if run["o"] else None
    elif run["er"]:
        data["error"] = unpack(run["er"])
    if run["pa"]:
        # "run:step" here; the incumbent's correlation ids join them by a dot.
        data["correlation_id"] = run["pa"].decode().partition(" ")[0].replace(":", ".", 1)
    return data
