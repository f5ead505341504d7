"""Learns that runs ended: a reply list per process and shard, filled by the scripts that end runs.

However many wait, there is one blocking connection (in a Cluster, one per shard waited on).
"""

import asyncio
import logging
from typing import Any, Final
from uuid import uuid4

from redis.exceptions import RedisError

from stepwell.errors import RunNotFoundError, StepwellError
from stepwell_engine.store.store import Store

_BLOCK_S: Final = 10
_RENEW_S: Final = 300.0  # a long wait says so again, well before its entry on the server lapses
_TTL_MS: Final = 900_000
_ENDS: Final = frozenset("cfk")
OPEN: Final = "open"
"""What stands for a run that a debounce or batch gathers events for."""

log = logging.getLogger("stepwell.client")


class Watcher:
    """Waits for the ends of runs.

    watcher = Watcher(store)
    await watcher.ended(run_id)
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.id = uuid4().hex
        keys = [store.keys(s).build("reply", self.id) for s in range(len(store.shards))]
        self._groups = [tuple(group) for group in store.server.same_node(keys)]
        self._group_of = {key: group for group in self._groups for key in group}
        self._keys = keys
        self._waiting: dict[tuple[str, ...], dict[str, set[asyncio.Future[bool]]]] = {}
        self._tasks: dict[tuple[str, ...], asyncio.Task[None]] = {}

    async def ended(self, run_id: str, *, expected: bool = False) -> None:
        """Return when the run has ended, or is known never to be. `expected`: its event is on its way, it may not exist yet.

        That of an open debounce or batch is waited for. Raises RunNotFoundError for an unknown run.
        """
        shard = self._store.of_run(run_id)
        group = self._group_of[self._keys[shard.shard]]
        while True:
            # Registered before the run's status is read: an end after the reading is told to it.
            news = self._register(group, run_id)
            try:
                status = await shard.watch(run_id, self.id, ttl_ms=_TTL_MS)
                if status in _ENDS or (len(status) > 1 and status != OPEN):
                    return
                if not status and not expected:
                    raise no_run(run_id)
                done, _ = await asyncio.wait((news,), timeout=_RENEW_S)
                if done and news.result():
                    return
            finally:
                self._forget(group, run_id, news)

    async def aclose(self) -> None:
        """Stop listening; whoever still waits is cancelled with its own task."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _register(self, group: tuple[str, ...], run_id: str) -> asyncio.Future[bool]:
        news: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(group, {}).setdefault(run_id, set()).add(news)
        if group not in self._tasks:
            task = asyncio.create_task(self._listen(group), name="stepwell-watcher")
            self._tasks[group] = task
        return news

    def _forget(self, group: tuple[str, ...], run_id: str, news: asyncio.Future[bool]) -> None:
        news.cancel()
        waiting = self._waiting.get(group, {})
        if (futures := waiting.get(run_id)) is not None:
            futures.discard(news)
            if not futures:
                del waiting[run_id]
        if not waiting:
            self._waiting.pop(group, None)

    async def _listen(self, group: tuple[str, ...]) -> None:
        # Ends within one block of the last waiter's leaving; the next waiter starts it again.
        try:
            while group in self._waiting:
                await self._hear(group)
        finally:
            # In the same turn as the last look: who registers later starts another listener.
            del self._tasks[group]

    async def _hear(self, group: tuple[str, ...]) -> None:
        try:
            for run_id in await self._take(group):
                self._tell(group, run_id.decode(), True)
        except (StepwellError, RedisError) as error:
            # A run id popped just then is lost, so everyone looks at the run again.
            log.warning("waiting for ends of runs was interrupted: %s", error)
            for waiting in self._waiting.get(group, ()):
                self._tell(group, waiting, False)

    async def _take(self, group: tuple[str, ...]) -> list[bytes]:
        server = self._store.server
        reply: list[bytes] | None = await server.blocking(
            group[0], "BLPOP", *group, _BLOCK_S, timeout=_BLOCK_S, label="watcher"
        )
        if reply is None:
            return []
        key = reply[0].decode()
        more: Any = await server.call(key, "LPOP", key, 1000)
        return [reply[1], *(more or ())]

    def _tell(self, group: tuple[str, ...], run_id: str, ended: bool) -> None:
        for news in self._waiting.get(group, {}).get(run_id, ()):
            if not news.done():
                news.set_result(ended)


def no_run(run_id: str) -> RunNotFoundError:
    """The error for an id that means nothing here."""
    return RunNotFoundError(
        f"there is no run {run_id!r}: its event is not handled yet, or its retention is over"
    )
