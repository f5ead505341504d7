"""`Engine`: server, coordinator, worker and a clock to move, in the test's own process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from stepwell.clock import VirtualClock
from stepwell.durations import Duration, parse_duration
from stepwell.errors import ConfigError, RunGatheringError, RunNotFoundError
from stepwell.events import Event
from stepwell.records import EventRecord, Run, RunStatus
from stepwell.testing.clock import EngineError, Timeline
from stepwell.testing.server import Kind, shared_url
from stepwell_engine.coordinator import Coordinator
from stepwell_engine.store.store import Store
from stepwell_workers.worker import Worker

if TYPE_CHECKING:
    from stepwell.client import Client

__all__ = ["Engine", "EngineError"]

_RETENTION: Final = "366d"  # a test that moves a month ahead still wants to see its runs
_PAGE: Final = 100
_UNLINKED: Final = 500


class Engine:
    """All of Stepwell for one test: a real server, a coordinator and a worker in this process.

    `clients` are bound to the engine while it is open: the first is `client`. Each engine has a namespace
    of its own, removed at the end; the server is shared by all engines of the process (`server` picks its
    kind, `url` names one that runs already). `start`: what the clock shows at first.

        async with Engine([client]) as engine:
            [event_id] = await engine.send(Event("shop/order", {"total": 5}))
            await engine.advance("7d")
            run = await engine.wait(event_id)
            assert run.output == "shipped"

    Raises `ConfigError`, `EmbeddedServerError`, and what `Worker` raises.
    """

    audit: ClassVar[Callable[[Store], Awaitable[None]] | None] = None
    """Called with the store before the namespace is removed: for checks of what a test left."""

    def __init__(
        self,
        clients: "Client | Sequence[Client]",
        *,
        shards: int = 1,
        concurrency: int = 100,
        server: Kind = "auto",
        url: str | None = None,
        start: datetime | None = None,
    ) -> None:
        self.clients = list(clients) if isinstance(clients, Sequence) else [clients]
        if not self.clients:
            raise ConfigError("Engine(clients=): the list is empty; give at least one client")
        if start is not None and start.tzinfo is None:
            raise ConfigError(f"Engine(start=): {start!r} has no time zone; add tzinfo=UTC")
        self.clock = VirtualClock()
        if start is not None:
            self.clock.offset_ms = int(start.timestamp() * 1000) - self.clock.now_ms()
        self.namespace = f"test-{token_hex(5)}"
        self.url = url or ""
        self._server: Kind = server
        self._shards = shards
        self._concurrency = concurrency
        self._coordinators: list[Coordinator] = []
        self._living: list[str] = []
        self._stack = AsyncExitStack()
        self._failed = False
        self.store: Store
        self.worker: Worker | None = None
        self._timeline: Timeline

    # --- open and close ---

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._failed = exc[0] is not None
        await self._stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> None:
        if not self.url:
            self.url = await asyncio.to_thread(shared_url, self._server)
        self.store = await Store.open(
            self.url, namespace=self.namespace, shards=self._shards, clock=self.clock, name="test"
        )
        stack.push_async_callback(self.store.aclose)
        stack.push_async_callback(self._remove)
        lanes = [client.app_id for client in self.clients]
        self._timeline = Timeline(self.store, self.clock, lanes, self._coordinators, self._living)
        for client in self.clients:
            bound = client.bound(
                redis_url=self.url,
                namespace=self.namespace,
                shards=self._shards,
                clock=self.clock,
            )
            await stack.enter_async_context(bound)
        stack.push_async_callback(self.stop_coordinator)
        await self.start_coordinator()
        stack.push_async_callback(self._end_worker)
        await self.start_worker()

    async def _remove(self) -> None:
        """Delete the namespace."""
        if Engine.audit is not None and not self._failed:
            await Engine.audit(self.store)
        server = self.store.server
        roots = [shard.keys.root for shard in self.store.shards]
        for group in server.same_node(roots):
            cursor: bytes | int = 0
            match = f"{{{self.namespace}:*" if len(group) > 1 else f"{group[0]}:*"
            while True:
                cursor, keys = await server.call(
                    group[0], "SCAN", cursor, "MATCH", match, "COUNT", _UNLINKED
                )
                # One by one, for in a Cluster a scan also meets keys of other slots.
                await asyncio.gather(*(server.call(k.decode(), "UNLINK", k) for k in keys))
                if int(cursor) == 0:
                    break

    # --- processes ---

    @property
    def client(self) -> "Client":
        """The first client."""
        return self.clients[0]

    @property
    def coordinator(self) -> Coordinator | None:
        """The coordinator, None while it is stopped."""
        return self._coordinators[0] if self._coordinators else None

    async def start_worker(self) -> None:
        """Start the worker. Without functions there is none."""
        if self.worker is not None:
            raise EngineError("the worker runs already; stop it first")
        if not any(client.functions for client in self.clients):
            return
        worker = Worker(
            self.clients,
            url=self.url,
            namespace=self.namespace,
            shards=self._shards,
            concurrency=self._concurrency,
            clock=self.clock,
        )
        await worker.start()
        self.worker = worker
        self._living.append(worker.worker_id)

    async def stop_worker(self) -> None:
        """Stop the worker as a deploy does: steps in flight end first (10 s at most)."""
        worker, self.worker = self.worker, None
        if worker is not None:
            await worker.drain(grace=10.0)
            self._living.remove(worker.worker_id)

    async def _end_worker(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            await worker.stop()

    async def kill_worker(self) -> None:
        """Stop the worker as a crash does: what it holds stays leased until the lease runs out."""
        worker, self.worker = self.worker, None
        if worker is not None:
            await worker.abandon()
            self._living.remove(worker.worker_id)

    async def restart_worker(self) -> None:
        """Stop the worker, if it runs, and start another."""
        await self.stop_worker()
        await self.start_worker()

    async def start_coordinator(self) -> None:
        """Start the coordinator."""
        if self._coordinators:
            raise EngineError("the coordinator runs already; stop it first")
        coordinator = Coordinator(self.store, retention=_RETENTION)
        await coordinator.start()
        self._coordinators.append(coordinator)

    async def stop_coordinator(self) -> None:
        """Stop the coordinator: events wait, nothing falls due."""
        while self._coordinators:
            await self._coordinators.pop().stop()

    # --- time ---

    def now(self) -> datetime:
        """What the engine's clock shows."""
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    async def settle(self, *, patience: float = 10.0) -> None:
        """Wait until the engine is at rest: all that can happen now has happened.

        Raises `EngineError` after `patience` (real) seconds.
        """
        await self._timeline.settle(patience)

    async def advance(self, duration: Duration, *, patience: float = 10.0) -> None:
        """Let `duration` pass: sleeps end, retries begin and timeouts strike, in order, in no time.

        Before each, the engine comes to rest. Raises `EngineError` when it does not within `patience`
        (real) seconds, and `DurationError`.
        """
        await self._timeline.advance(parse_duration(duration, argument="duration"), patience)

    # --- events and runs ---

    async def send(self, events: Event | Sequence[Event]) -> list[str]:
        """Send events with the first client; their ids."""
        return await self.client.send(events)

    async def wait(self, id: str, *, timeout: float = 10.0) -> Run:  # noqa: A002, ASYNC109
        """Wait for the end of a run, given its id or that of the one event which started it.

        The clock stands still meanwhile, but for its own pace: `advance` first when the run sleeps. Raises
        `EngineError` when the event started no run or several, or the run did not end within `timeout`
        (real) seconds, and `RunNotFoundError`.
        """
        run_id = id
        try:
            async with asyncio.timeout(timeout):
                run_id = await self._run_of(id)
                return await self.client.wait_for_run(run_id)
        except TimeoutError:
            raise EngineError(await self._unfinished(run_id, timeout)) from None

    async def event(self, event_id: str) -> EventRecord:
        """What became of an event, once a coordinator handled it. Raises `EngineError`."""
        record = await self._handled(event_id)
        if record is None:
            raise EngineError(f"there is no event {event_id!r}")
        return record

    async def run(self, run_id: str) -> Run:
        """A run as it is now. Raises `RunNotFoundError`."""
        return await self.client.get_run(run_id)

    async def runs(self, fn_id: str | None = None, *, status: RunStatus | None = None) -> list[Run]:
        """All runs (of one function, of one status) of all clients' apps, oldest first."""
        found: list[Run] = []
        cursor: str | None = None
        while True:
            page = await self.client.list_runs(
                fn_id=fn_id, status=status, limit=_PAGE, cursor=cursor
            )
            found += await asyncio.gather(*(self.client.get_run(row.id) for row in page.items))
            cursor = page.cursor
            if cursor is None:
                return found[::-1]

    async def _run_of(self, id_: str) -> str:
        record = await self._handled(id_)
        if record is None:
            return id_
        if len(record.run_ids) != 1:
            told: Any = [
                f"{o.fn_id}: {o.outcome}" for o in record.outcomes
            ] or "no function wants it"
            raise EngineError(
                f"event {id_} started {len(record.run_ids)} runs ({told}); wait for one by its run id, "
                "as engine.event(...) tells it"
            )
        return record.run_ids[0]

    async def _handled(self, event_id: str) -> EventRecord | None:
        pause = 0.0005
        async with asyncio.timeout(10.0):
            while True:
                record = await self.client.get_event(event_id)
                if record is not None and record.duplicate_of:
                    event_id = record.duplicate_of
                elif record is None or not record.pending:
                    return record
                else:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.01)

    async def _unfinished(self, run_id: str, timeout: float) -> str:  # noqa: ASYNC109
        try:
            run = await self.client.get_run(run_id)
        except RunGatheringError as error:
            return f"{error}; move the clock with engine.advance(...)"
        except RunNotFoundError:
            return f"event {run_id} was not handled within {timeout:g} s"
        waits = [f"{s.op} {s.id!r} ({s.status})" for s in run.steps if not s.ended_at]
        return (
            f"run {run_id} of {run.function_id} is {run.status} after {timeout:g} s; open steps: "
            f"{', '.join(waits) or 'none'}; move the clock with engine.advance(...) if it sleeps or waits"
        )
