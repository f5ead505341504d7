"""For tests of `Cancel`: runs to be cancelled, and entries handled in an order that no coordinator would choose."""

from typing import Any

from stepwell import Cancel, Client, TriggerEvent
from stepwell.records import Run, RunStatus
from stepwell.testing.engine import Engine
from stepwell_engine.entries import Batch
from stepwell_engine.fanout import Fanout
from stepwell_engine.matching import Matcher
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry

GO = TriggerEvent("t/go")
BY_ID = Cancel("t/stop", match="data.id")


def sleeper(client: Client, **options: Any) -> None:
    """Runs that do nothing for an hour."""

    @client.create_function(fn_id="f", trigger=GO, **options)
    async def f(ctx):
        await ctx.step.sleep("nap", "1h")
        return "slept"


def was_cancelled_by(run: Run, event_id: str, name: str = "t/stop") -> bool:
    message = f"cancelled by event {name!r} ({event_id})"
    return run.status is RunStatus.CANCELLED and run.error.message == message


async def handle(engine: Engine, *event_ids: str) -> None:
    """Handle the entries of those events in that order, as a coordinator that has read no others. The engine's own is stopped."""
    fanout = await _fanout(engine)
    for event_id in event_ids:
        for shard, rows in await _rows(engine, event_id):
            await fanout.handle([Batch(shard, rows)])


async def handle_at_once(engine: Engine, *event_ids: str) -> None:
    """The same, for a coordinator that has read all of them in one go."""
    fanout = await _fanout(engine)
    found: dict[int, list[Any]] = {}
    for event_id in event_ids:
        for shard, rows in await _rows(engine, event_id):
            found.setdefault(shard, []).extend(rows)
    await fanout.handle([Batch(shard, rows) for shard, rows in found.items()])


async def _fanout(engine: Engine) -> Fanout:
    registry = Registry(engine.store)
    metrics = Metrics()
    fanout = Fanout(engine.store, registry, Matcher(engine.store, metrics), metrics)
    await registry.refresh()
    return fanout


async def _rows(engine: Engine, event_id: str) -> list[tuple[int, list[Any]]]:
    """The entries of an event, by shard."""
    found: list[tuple[int, list[Any]]] = []
    for shard in range(len(engine.store.shards)):
        stream = engine.store.keys(shard).events
        rows = await engine.store.server.call(stream, "XRANGE", stream, "-", "+")
        mine = [row for row in rows if row[1][3] == event_id.encode()]
        if mine:
            found.append((shard, mine))
    return found
