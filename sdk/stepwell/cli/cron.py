"""`stepwell cron`: the functions that start by the clock, and when."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell.cli import options, output
from stepwell.cli.connect import look

if TYPE_CHECKING:
    from datetime import datetime

    from stepwell_engine.cron import Schedule
    from stepwell_engine.store.store import Store
    from stepwell_engine.triggers import RegisteredFunction

_COLUMNS = ("FUNCTION", "CRON", "ZONE", "LAST TICK (UTC)", "RUN", "STATUS", "NEXT", "NEXT (UTC)")
_NONE = "No worker has registered a function with a cron yet."


def cron(
    count: Annotated[
        int, typer.Option("--next", min=1, max=100, metavar="N", help="How many ticks to come.")
    ] = 1,
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """List the cron triggers with their last tick and run, and their next ticks in their zone and in UTC.

    Jitter is not in the ticks: a run starts up to that much later.
    """
    found = look(partial(_read, count=count), redis_url, namespace)
    if as_json:
        output.print_json({"crons": found})
        return
    output.print_rows(_COLUMNS, (row for each in found for row in _rows(each)), _NONE)


async def _read(store: "Store", *, count: int) -> list[dict[str, Any]]:
    from stepwell_engine.registry import Registry

    registry = Registry(store)
    await registry.refresh()
    parts = await asyncio.gather(*(_of(store, f, count) for f in registry.all()))
    found = [row for rows in parts for row in rows]
    return sorted(found, key=lambda each: (each["app_id"], each["fn_id"]))


async def _of(store: "Store", function: "RegisteredFunction", count: int) -> list[dict[str, Any]]:
    from stepwell_engine.cron_plan import crons, last_run

    wanted = crons(function.config)
    if not wanted:
        return []
    keys = store.keys(function.shard)
    state: list[bytes | None] = await store.server.call(
        keys.root, "HMGET", keys.build("cron", function.number), *(c.identity for c in wanted)
    )
    return [
        {
            "app_id": function.app,
            "fn_id": function.fn,
            "cron": each.text,
            "timezone": each.identity.partition(" ")[0],
            "jitter_ms": each.jitter_ms,
            "catchup": each.catchup,
            "last": await _last(store, last_run(value) if value else None),
            "next": _next(each.schedule, store.clock.now_ms(), count),
        }
        for each, value in zip(wanted, state, strict=True)
    ]


async def _last(store: "Store", run_id: str | None) -> dict[str, Any] | None:
    """The last tick that started a run; its status is null when the run is past its retention."""
    if run_id is None:
        return None
    from stepwell.ids import ulid_ms
    from stepwell.records import run_status
    from stepwell_engine.views import moment

    key = store.of_run(run_id).keys.run(run_id)
    status, state = await store.server.call(key, "HMGET", key, "st", "rs")
    return {
        "tick": moment(ulid_ms(run_id)),
        "run_id": run_id,
        "status": run_status(status.decode(), (state or b"").decode()) if status else None,
    }


def _next(schedule: "Schedule | None", now_ms: int, count: int) -> list[dict[str, "datetime"]]:
    from stepwell_engine.views import moment

    found: list[dict[str, datetime]] = []
    tick = schedule.next_ms(now_ms) if schedule else None
    while schedule and tick is not None and len(found) < count:
        found.append({"local": schedule.local(tick), "utc": moment(tick)})
        tick = schedule.next_ms(tick)
    return found


def _rows(each: dict[str, Any]) -> list[tuple[str, ...]]:
    """The trigger with its first tick, a line for each tick after it."""
    last = each["last"]
    ran = (_utc(last["tick"]), last["run_id"], last["status"] or "") if last else ("", "", "")
    # The zone has its column.
    text = each["cron"].replace(f"TZ={each['timezone']}", "").strip()
    head = (f"{each['app_id']}/{each['fn_id']}", text, each["timezone"], *ran)
    if not each["next"]:
        return [(*head, "can't be read here", "")]
    ticks = [(f"{tick['local']:%a %Y-%m-%d %H:%M %Z}", _utc(tick["utc"])) for tick in each["next"]]
    return [(*head, *ticks[0]), *((*("" for _ in head), *tick) for tick in ticks[1:])]


def _utc(at: "datetime") -> str:
    return f"{at:%Y-%m-%d %H:%M}"
