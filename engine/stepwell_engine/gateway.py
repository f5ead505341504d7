"""The engine as a client sees it: what `stepwell.gateway.Gateway` asks, over a Store."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from stepwell.errors import (
    FunctionNotFoundError,
    RunGatheringError,
    RunNotStartedError,
    SendEventsError,
)
from stepwell.events import Event
from stepwell.gateway import BulkQuery, GatewayOptions, Removal, RunQuery
from stepwell.ids import event_entropy, event_shard, function_shard, is_ulid, run_id, ulid_ms
from stepwell.records import (
    BulkCancel,
    EventOutcome,
    EventRecord,
    Explanation,
    Page,
    RemovedFunction,
    Run,
    RunStatus,
    RunSummary,
    run_status,
)
from stepwell.serde.values import pack, unpack
from stepwell_engine import views
from stepwell_engine.directory import Directory, Registered
from stepwell_engine.intake import Intake, new_seed
from stepwell_engine.listing import list_runs
from stepwell_engine.routing import event_route
from stepwell_engine.signals import send_signal
from stepwell_engine.store.keys import Keys
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import NewEvent, Transitions
from stepwell_engine.watcher import OPEN, Watcher, no_run

CANCEL_GRACE_MS: Final = 10_000
_GATHERED: Final = frozenset({"debounced", "batched"})
_STREAM_LOOK: Final = 1_000  # entries of one shard's stream looked at for one event


class StoreGateway:
    """A client's door to one namespace, on one event loop."""

    def __init__(self, store: Store, deadline: float) -> None:
        self.store = store
        self._intake = Intake(store, deadline)
        self._directory = Directory(store)
        self._watcher = Watcher(store)

    @classmethod
    async def open(cls, options: GatewayOptions) -> "StoreGateway":
        """Connect and check. Errors as for `Store.open`."""
        store = await Store.open(
            options.url,
            namespace=options.namespace,
            shards=options.shards,
            clock=options.clock,
            deadline=options.deadline,
        )
        return cls(store, options.deadline)

    async def send(
        self, events: Sequence[Event], encoded: Sequence[bytes], *, seed: str = ""
    ) -> list[str]:
        """Accept events; their ids in order. Sent again with the same seed they are the same."""
        count = len(self.store.shards)
        causes = seed or new_seed()
        home = event_shard(causes, count)
        parts: dict[int, list[int]] = {}
        items: list[NewEvent] = []
        for index, event in enumerate(events):
            entropy = event_entropy(causes, index)
            hash_, shard = event_route(event.id, count) if event.id else ("", home)
            items.append(NewEvent(event.name, encoded[index], entropy, hash_))
            if shard in parts:
                parts[shard].append(index)
            else:
                parts[shard] = [index]
        if len(parts) == 1:
            return await self._intake.put(next(iter(parts)), items, seed)
        return await self._send_parts(items, parts, seed)

    async def _send_parts(
        self, items: Sequence[NewEvent], parts: dict[int, list[int]], seed: str
    ) -> list[str]:
        """Each shard accepts its part whole or not; a part that failed does not undo others."""
        replies = await asyncio.gather(
            *(
                self._intake.put(shard, [items[i] for i in indexes], seed)
                for shard, indexes in parts.items()
            ),
            return_exceptions=True,
        )
        ids = [""] * len(items)
        failures: list[BaseException] = []
        for indexes, reply in zip(parts.values(), replies, strict=True):
            if isinstance(reply, BaseException):
                failures.append(reply)
                continue
            for index, event_id in zip(indexes, reply, strict=True):
                ids[index] = event_id
        accepted = [event_id for event_id in ids if event_id]
        if not failures:
            return ids
        if not accepted or not isinstance(failures[0], Exception):
            raise failures[0]
        raise SendEventsError(
            f"{len(accepted)} of {len(items)} events were accepted (.ids), the others not: "
            f"{failures[0]}",
            accepted,
        ) from failures[0]

    async def function(self, name: str) -> tuple[str, str]:
        """App and id of the one function called `app-fn`."""
        found = await self._directory.slug(name)
        if len(found) == 1:
            return found[0].app_id, found[0].fn_id
        if not found:
            raise FunctionNotFoundError(
                f"function={name!r}: no worker has registered such a function in namespace "
                f"{self.store.namespace!r}; write app-fn, and start a worker of that app once"
            )
        pairs = " and ".join(f"app {f.app_id!r} fn {f.fn_id!r}" for f in found)
        raise FunctionNotFoundError(
            f"function={name!r} may be {pairs}; write reference_function(app_id=, function_id=)"
        )

    async def start(self, app_id: str, fn_id: str, encoded: bytes, *, seed: str = "") -> str:
        """Start a run of a registered function with that event; the run's id."""
        function = await self._directory.find(app_id, fn_id)
        if function is None or function.removed:
            raise FunctionNotFoundError(
                f"function: no worker has registered {fn_id!r} of app {app_id!r} in namespace "
                f"{self.store.namespace!r}, or it was removed; start a worker of that app once"
            )
        shard = function_shard(app_id, fn_id, len(self.store.shards))
        target = pack([app_id, fn_id, ""])
        item = NewEvent(
            "inngest/function.invoked",
            encoded,
            event_entropy(seed or new_seed(), 0),
            kind="v",
            extra=target,
        )
        (event_id,) = await self._intake.put(shard, [item], seed)
        return run_id(ulid_ms(event_id), event_id, app_id, fn_id, shard)

    async def result(self, run_id: str, *, expected: bool = False) -> tuple[RunStatus, Any]:
        """Wait for a run's end: its status with its output, or with its ErrorInfo."""
        await self._watcher.ended(run_id, expected=expected)
        key = self.store.of_run(run_id).keys.run(run_id)
        letter, output, error = await self.store.server.call(key, "HMGET", key, "st", "o", "er")
        if letter is None:
            return await self.result(await self._instead(run_id), expected=True)
        if letter == b"c":
            return RunStatus.COMPLETED, None if output is None else unpack(output)
        return run_status(letter.decode(), ""), views.error_info(unpack(error) if error else {})

    async def _instead(self, run_id: str) -> str:
        """The run that comes in place of one that is not there: for which its event was gathered, or itself, later."""
        key = self.store.of_run(run_id).keys.build("outcome", run_id)
        outcomes: list[bytes] = await self.store.server.call(key, "HVALS", key)
        if not outcomes:
            raise no_run(run_id)
        word, _, other = outcomes[0].decode().partition(" ")
        if word in _GATHERED:
            return other
        if word == OPEN:
            return run_id
        why = EventOutcome(app_id="", fn_id="", outcome=word, run_id=other).reason
        text = f"the function was not started: {why}"
        if word == views.NOT_FOUND:
            raise FunctionNotFoundError(f"{text}; start a worker that serves it")
        raise RunNotStartedError(text)

    async def wait(self, run_id: str) -> Run:
        """Wait for a run's end, and before that for its beginning where events are gathered for it."""
        await self._watcher.ended(run_id)
        while (run := await self._read(run_id)) is None:
            run_id = await self._instead(run_id)
            await self._watcher.ended(run_id, expected=True)
        return run

    async def run(self, run_id: str) -> Run:
        """A run, whole."""
        run = await self._read(run_id)
        if run is not None:
            return run
        why = await self.explain(run_id)
        if why.reason == "gathering":
            raise RunGatheringError(f"{why} wait_for_run waits for it", until=why.until)
        if why.reason == "not_started":
            raise RunNotStartedError(str(why))
        # It has come just now, or its event was gathered for another.
        run = await self._read(why.run_id)
        if run is None:
            raise no_run(run_id)
        return run

    async def _read(self, run_id: str) -> Run | None:
        key = self.store.of_run(run_id).keys.run(run_id)
        flat: list[bytes] = await self.store.server.call(key, "HGETALL", key)
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if b"st" not in fields:
            return None
        function = await self._directory.numbered(fields[b"f"].decode())
        return views.run(run_id, function.fn_id if function else "", fields)

    async def explain(self, run_id: str) -> Explanation:
        """Why a run is not running now."""
        # Here and below: what only some need must not make everybody's first `send` wait for its import.
        from stepwell_engine.explain_read import explain

        return await explain(self.store, self._directory, run_id)

    async def runs(self, query: RunQuery) -> Page[RunSummary]:
        """Runs, newest first."""
        return await list_runs(self.store, self._directory, query)

    async def cancel(self, run_id: str, reason: str, *, children: bool = False) -> RunStatus:
        """Cancel a run; its status afterwards."""
        letter = await self.store.of_run(run_id).cancel(
            run_id,
            error=pack(views.cancelled_error(reason, "api")),
            grace_ms=CANCEL_GRACE_MS,
            children=children,
        )
        if not letter:
            raise no_run(run_id)
        return run_status(letter, "")

    async def cancel_runs(self, query: BulkQuery) -> BulkCancel:
        """Cancel the runs that a query describes."""
        from stepwell_engine.bulk import cancel_runs

        return await cancel_runs(self.store, self._directory, query)

    async def remove_function(self, asked: Removal) -> RemovedFunction:
        """Take a function out of the registry."""
        from stepwell_engine.removal import remove_function

        return await remove_function(self.store, self._directory, asked)

    async def signal(self, signal: str, value: bytes, hold_ms: int) -> str | None:
        """Send a signal; the run that received it."""
        return await send_signal(self.store, signal, value, hold_ms=hold_ms)

    async def event(self, event_id: str) -> EventRecord | None:
        """What became of an event. Its id does not tell its shard, so all of them are asked."""
        record = await self._handled(event_id) if is_ulid(event_id) else None
        if record is None or record.pending or record.duplicate_of:
            return record
        count, rows = await self._cancelled(event_id)
        return replace(record, outcomes=(*record.outcomes, *rows), cancelled=count)

    async def _handled(self, event_id: str) -> EventRecord | None:
        record, started = await self._found(event_id), None
        if record is None or record.pending:
            # An event whose only effects are runs on its own shard leaves no record but these.
            started = await self._started(event_id)
            if started is not None:
                # It may have been handled since the first look: what leaves a record has left it by now.
                record = await self._found(event_id)
        if record is None or record.pending:
            record = started or record
        elif record.outcomes:
            record = replace(record, outcomes=await self._decided(event_id, record.outcomes))
        if record is not None and record.event is None:
            runs = (o.run_id for o in record.outcomes if o.outcome == "started" and o.run_id)
            if (run_id := next(runs, None)) is not None:
                return replace(record, event=await self._event_of(run_id, event_id))
        return record

    async def _found(self, event_id: str) -> EventRecord | None:
        """Its record, or its entry in a stream."""
        found = await asyncio.gather(
            *(self._record(shard, event_id) for shard in self.store.shards)
        )
        return next((r for r in found if r is not None), None)

    async def _cancelled(self, event_id: str) -> tuple[int, list[EventOutcome]]:
        """How many runs the event cancelled, and the first of them."""
        keys = [shard.keys.build("outcome", event_id) for shard in self.store.shards]
        found = await asyncio.gather(*(self.store.server.call(k, "HGETALL", k) for k in keys))
        count, rows = 0, list[EventOutcome]()
        for flat in found:
            for field, value in zip(flat[::2], flat[1::2], strict=True):
                if field == b"!":
                    count += int(value)
                elif field[:1] == b"!":
                    function = await self._directory.numbered(value.decode())
                    app, fn = (function.app_id, function.fn_id) if function else ("", "")
                    run = field[1:].decode()
                    rows.append(EventOutcome(app_id=app, fn_id=fn, outcome="cancels", run_id=run))
        return count, sorted(rows, key=lambda row: row.run_id or "")

    async def _decided(
        self, event_id: str, outcomes: Sequence[EventOutcome]
    ) -> tuple[EventOutcome, ...]:
        """Outcomes with what the scripts made of them: flow control decides where the function lives."""
        return tuple(await asyncio.gather(*(self._decide(event_id, o) for o in outcomes)))

    async def _decide(self, event_id: str, planned: EventOutcome) -> EventOutcome:
        function = await self._directory.find(planned.app_id, planned.fn_id)
        if planned.run_id is None or function is None:
            return planned
        keys = self.store.of_run(planned.run_id).keys
        text = await self._outcome(keys, event_id, function.number)
        word, _, run_id = (text or b"").decode().partition(" ")
        window = await self._outcome(keys, run_id, function.number) if word in _GATHERED else None
        return views.decided(planned, text, window)

    async def _outcome(self, keys: Keys, subject: str, number: str) -> bytes | None:
        key = keys.build("outcome", subject)
        found: bytes | None = await self.store.server.call(key, "HGET", key, number)
        return found

    async def _record(self, shard: Transitions, event_id: str) -> EventRecord | None:
        server, key = self.store.server, shard.keys.build("record", event_id)
        accepted = ulid_ms(event_id)
        raw: bytes | None = await server.call(key, "GET", key)
        if raw is not None:
            return views.event(event_id, raw, accepted)
        # Not handled yet: its entry was written in the ms of its id (a failover's clock aside).
        at = accepted - self.store.clock.offset_ms
        stream = shard.keys.events
        entries: list[Any] = await server.call(
            stream, "XRANGE", stream, at - 1, at + 1, "COUNT", _STREAM_LOOK
        )
        for _, flat in entries:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            if fields.get(b"i") == event_id.encode():
                return views.waiting_event(event_id, fields[b"d"], accepted)
        # It may have been handled between the two looks.
        raw = await server.call(key, "GET", key)
        return None if raw is None else views.event(event_id, raw, accepted)

    async def _started(self, event_id: str) -> EventRecord | None:
        """The runs an event started, looked up by the ids that they must have; None when there are none."""
        accepted, count = ulid_ms(event_id), len(self.store.shards)
        wanted: list[tuple[Registered, str]] = []
        for function in await self._directory.all():
            app, fn = function.app_id, function.fn_id
            shard = function_shard(app, fn, count)
            wanted.append((function, run_id(accepted, event_id, app, fn, shard)))
        keys = [self.store.of_run(run).keys.run(run) for _, run in wanted]
        exist = await asyncio.gather(*(self.store.server.call(k, "EXISTS", k) for k in keys))
        return views.started(
            event_id,
            accepted,
            [
                (f.app_id, f.fn_id, run)
                for (f, run), there in zip(wanted, exist, strict=True)
                if there
            ],
        )

    async def _event_of(self, run_id: str, event_id: str) -> Event | None:
        """The event, if a run still has it: that of a debounce has the last one."""
        key = self.store.of_run(run_id).keys.run(run_id)
        names = b"e", b"eb", b"el"
        values: list[bytes | None] = await self.store.server.call(key, "HMGET", key, *names)
        return views.event_of(dict(zip(names, values, strict=True)), event_id)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._watcher.aclose()
        await self.store.aclose()
