"""`Worker`: leases items of its apps and runs them. Three verbs: start, drain, stop.

What it is made of: `fetch` gets work, `entry` (and `sync`) runs it, `heartbeat` keeps its leases, `control` hears of results and cancels.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from stepwell.clock import Clock
from stepwell.errors import ConfigError, ServerError, StepwellError
from stepwell.function import Function
from stepwell.serde.values import pack
from stepwell_engine import expressions, registry
from stepwell_engine.metrics import Metrics
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Leased, Transitions
from stepwell_workers import attempts
from stepwell_workers.control import control_groups, control_loop
from stepwell_workers.counters import Counters
from stepwell_workers.entry import CANCEL, LOST, YIELD, Entry
from stepwell_workers.fetch import Fetcher
from stepwell_workers.heartbeat import Heartbeat, Lost
from stepwell_workers.services import Services
from stepwell_workers.sync import SyncEntry
from stepwell_workers.threads import ThreadPool

if TYPE_CHECKING:
    from stepwell.client import Client

logger = logging.getLogger("stepwell.worker")

TICK = 1.0
# Every so many ticks, entries that stay in memory read what their parked steps wait for: a message may have been lost.
LOOK = 10
UNKNOWN_DELAY_MS = 5_000


class Worker:
    """Runs the functions of `clients`, at most `concurrency` items at once.

    `url`, `namespace` and `shards` default to the first client's; all clients of a worker share them. Raises `ConfigError` for clients
    that don't, and what `Store.open` raises.

        worker = Worker([client], concurrency=100)
        await worker.start()
        await worker.drain(grace=30.0)
    """

    def __init__(
        self,
        clients: "Sequence[Client]",
        *,
        url: str | None = None,
        namespace: str | None = None,
        shards: int | None = None,
        concurrency: int = 100,
        clock: Clock | None = None,
        lease_ms: int = 20_000,
        heartbeat_s: float = 6.0,
        worker_id: str | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        if not clients:
            raise ConfigError("clients is empty; a worker needs at least one stepwell.Client")
        if concurrency < 1:
            raise ConfigError(
                f"concurrency is {concurrency}; write how many items may run at once, at least 1"
            )
        self._clients = list(clients)
        first = self._clients[0]
        self._url = url or first.redis_url
        self._namespace = namespace or first.namespace
        self._shards = shards or first.shards
        self._clock = clock or first.clock
        self._concurrency = concurrency
        self._lease_ms = lease_ms
        self._heartbeat_s = heartbeat_s
        self.worker_id = worker_id or make_worker_id()
        self.metrics = metrics or Metrics()
        self._counters = Counters(self.metrics)
        self._functions: dict[str, Function[Any]] = {}
        self._entries: dict[str, Entry] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._bells: list[asyncio.Task[None]] = []
        self._begun = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_poll = 0.0
        self._opened = AsyncExitStack()
        self._serving = False
        self.store: Store
        self.services: Services
        self._fetcher: Fetcher
        self._leasing: asyncio.Task[None]
        self._heartbeat: Heartbeat
        self._threads: ThreadPool

    # --- start ---

    async def start(self) -> None:
        """Connect, publish the functions, begin to lease. When that fails, nothing is left open; it may be tried again."""
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        self._serving = True

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._last_poll = loop.time()
        self.store = await self._open("stepwell-worker")
        self._opened.push_async_callback(self.store.aclose)
        for warning in self.store.warnings:
            logger.warning("%s", warning)
        functions = [function for client in self._clients for function in client.functions.values()]
        if not functions:
            raise ConfigError(
                "the clients have no functions; define some with @client.create_function(...)"
            )
        configs = [(function.app_id, function.fn_id, function.config()) for function in functions]
        numbers = await registry.register(self.store, configs, self.store.clock.now_ms())
        self._functions = {
            numbers[function.app_id, function.fn_id]: function for function in functions
        }
        self._threads = ThreadPool(self._concurrency)
        self._opened.callback(self._threads.close)
        self.services = Services(
            self.store,
            self.worker_id,
            self._threads,
            client=self._clients[0],
            saturated=lambda: self._fetcher.saturated,
            counters=self._counters,
            on_finishing=lambda entry: self._fetcher.released(suspect=entry.suspect),
        )
        lanes = sorted({client.app_id for client in self._clients})
        self._fetcher = Fetcher(
            self.store,
            lanes,
            self.worker_id,
            slots=self._concurrency,
            lease_ms=self._lease_ms,
            begin=self._begin,
            on_poll=self._polled,
        )
        self._heartbeat = Heartbeat(
            self.worker_id,
            lambda: self._open("stepwell-heartbeat"),
            self._on_lost,
            interval=self._heartbeat_s,
            lease_ms=self._lease_ms,
            alive_ms=self._lease_ms * 3 // 4,
        )
        self._opened.push_async_callback(self._heartbeat.stop)
        self._heartbeat.start()
        # The first expression loads the parser; better now than under a run.
        await self._threads.run(expressions.compile, "event.data.id == async.data.id")
        # A lease of a worker nobody has heard of would look like a dead worker's.
        await self._heartbeat.alive()
        self._leasing = self._loop(self._fetcher.lease_loop())
        self._loop(self._tick())
        for group in self._fetcher.bell_groups():
            self._bells.append(self._loop(self._fetcher.bell_loop(group)))
        for keys in control_groups(self.store, self.worker_id):
            self._loop(control_loop(self.store, keys, self._on_message))

    async def _open(self, name: str) -> Store:
        return await Store.open(
            self._url, namespace=self._namespace, shards=self._shards, clock=self._clock, name=name
        )

    def _loop(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coro)
        self._loops.append(task)
        return task

    def _polled(self) -> None:
        self._last_poll = asyncio.get_running_loop().time()

    @property
    def age(self) -> float:
        """Seconds since the server last answered; what readiness looks at."""
        return asyncio.get_running_loop().time() - self._last_poll

    @property
    def idle(self) -> bool:
        """No item in hand."""
        return not self._begun

    # --- one item ---

    def _begin(self, shard: Transitions, leased: Leased) -> None:
        item = leased.item
        self._heartbeat.hold(item, leased.token, shard.shard)
        self._begun += 1
        asyncio.get_running_loop().create_task(self._run(shard, leased, item))

    async def _run(self, shard: Transitions, leased: Leased, item: str) -> None:
        entry: Entry | None = None
        try:
            if not leased.fields:
                fields = await self.services.read_run(shard, leased.run_id)
                leased = leased._replace(fields=fields)
            function = self._functions.get(leased.fields[b"f"].decode())
            if function is None:
                await self._refuse(shard, leased)
                return
            # In the next turn: somebody waits for the function's first line, nobody for the count.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._counters.leased, leased.fields, self.store.clock.now_ms())
            kind = Entry if function.is_handler_async else SyncEntry
            entry = kind(self.services, shard, function, leased)
            self._entries[item] = entry
            if self.services.draining == "stop":
                # It was on its way when the others were closed. In the next turn: now it has not begun.
                loop.call_soon(entry.close, YIELD, "stop")
            await entry.run()
        except asyncio.CancelledError:
            if entry is None or not entry.closing:
                raise
        except ServerError:
            logger.exception(
                "run %s: the entry was given up; its lease will run out", leased.run_id
            )
        except Exception as error:
            logger.exception("run %s can't be run here; it is failed", leased.run_id)
            await self._give_up(shard, leased, error)
        finally:
            self._heartbeat.drop(item, leased.token)
            if self._entries.get(item) is entry:
                self._entries.pop(item, None)
            if entry is None or not entry.finishing:
                self._fetcher.released(suspect=leased.suspect)
            self._begun -= 1
            if not self._begun:
                self._idle.set()

    async def _give_up(self, shard: Transitions, leased: Leased, error: Exception) -> None:
        """An entry that can't be run would come back for ever: its run ends."""
        fault = StepwellError(f"the worker could not run it: {type(error).__name__}: {error}")
        failed = pack(attempts.payload(fault), where="error")
        try:
            await shard.commit(leased.run_id, leased.step, leased.token, 0, ("F", "f", failed))
        except Exception:
            logger.exception(
                "run %s: nor could it be failed; its lease will run out", leased.run_id
            )

    async def _refuse(self, shard: Transitions, leased: Leased) -> None:
        """A run of a function this process doesn't have (an older deployment): give it back for a while."""
        logger.warning(
            "run %s is of a function this worker does not have; it goes back into the queue",
            leased.run_id,
        )
        tried = leased.fields.get(b"t:" + leased.step.encode(), b"")
        await shard.commit(
            leased.run_id, leased.step, leased.token, 0, ("R", UNKNOWN_DELAY_MS, tried)
        )

    # --- messages, lost leases, time limits ---

    def _on_message(self, message: bytes) -> None:
        run_id = message[1:].decode()
        for item, entry in list(self._entries.items()):
            if item[:26] != run_id:
                continue
            if message[:1] == b"c":
                entry.close(CANCEL)
            else:
                entry.on_news()

    def _on_lost(self, lost: list[Lost]) -> None:
        for item, token, _ in lost:
            entry = self._entries.get(item)
            if entry is not None and entry.journal.token == token and not entry.closing:
                self.services.lost(entry)
                entry.close(LOST)

    async def _tick(self) -> None:
        """End steps that run too long; make good lost messages."""
        turn = 0
        while True:
            await asyncio.sleep(TICK)
            turn += 1
            now = self.services.monotonic()
            for entry in list(self._entries.values()):
                if turn % LOOK == 0 and entry.steps.parked:
                    entry.on_news()
                limit = entry.function.step_timeout_ms / 1000
                for key, (began, task) in list(entry.steps.active.items()):
                    if now - began > limit:
                        entry.steps.timed_out.add(key)
                        task.cancel()

    # --- the end ---

    async def drain(self, grace: float = 30.0) -> None:
        """Lease no more, let steps in flight end and be recorded, release the rest at once; then stop. `grace` in seconds."""
        if not self._serving:
            return
        self._fetcher.stop()
        self.services.draining = "drain"
        for entry in list(self._entries.values()):
            if not entry.steps.executing:
                entry.close(YIELD, "drain")
        try:
            async with asyncio.timeout(grace):
                await self._fetched()
                await self._ended()
        except TimeoutError:
            logger.warning(
                "drain: %d entries did not end within %g s; they are released",
                len(self._entries),
                grace,
            )
        await self.stop()

    async def stop(self) -> None:
        """Release everything now: steps in flight are interrupted and will run again elsewhere. Idempotent, also before `start`."""
        if not self._serving:
            return
        self._fetcher.stop()
        self.services.draining = "stop"
        for entry in list(self._entries.values()):
            entry.close(YIELD, "stop")
        try:
            async with asyncio.timeout(5.0):
                await self._fetched()
                await self._ended()
        except TimeoutError:
            logger.warning(
                "stop: %d entries would not end; their leases will run out", len(self._entries)
            )
        await self._close()

    async def _fetched(self) -> None:
        """What was leased as the fetcher was stopped has begun, or it would wait until its lease runs out; and nobody listens any more."""
        await self._fetcher.withdraw()
        await asyncio.wait([self._leasing])
        bells, self._bells = self._bells, []
        for bell in bells:
            bell.cancel()
        await asyncio.gather(*bells, return_exceptions=True)
        if bells:
            await self._fetcher.ring()

    async def _ended(self) -> None:
        while self._begun:
            self._idle.clear()
            await self._idle.wait()

    async def abandon(self) -> None:
        """Die without a word, as far as a process can while others share it: for tests of crashes."""
        for entry in list(self._entries.values()):
            entry.close(LOST)
        await self._close()

    async def _close(self) -> None:
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops.clear()
        self._serving = False
        await self._opened.aclose()


def make_worker_id() -> str:
    """host:pid:random, short: it stands in every lease.

    >>> make_worker_id()
    'web-1:4711:k3v9qa'
    """
    return f"{socket.gethostname()[:16]}:{os.getpid()}:{secrets.token_hex(3)}"
