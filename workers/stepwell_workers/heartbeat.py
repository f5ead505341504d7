"""Renews a worker's leases from a thread with its own event loop and connections.

User code that blocks the worker's loop so costs no lease. Leases that can't be kept are reported.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from random import uniform
from threading import Thread
from typing import Final, Literal, NamedTuple, Protocol

from redis.exceptions import RedisError

from stepwell.errors import StepwellError

CHUNK: Final = 1_000
"""Items a renew script gets at once (a bound of `unpack` and of a script's time)."""

RETRY: Final = 1.0
"""Seconds at most between tries while the server is away."""

_TROUBLE = (StepwellError, RedisError, OSError)  # TimeoutError is an OSError

Reason = Literal["taken", "unrenewed", "timeout"]
"""Why a lease is lost: the server says it is another's (or the run ended) · it could not be renewed
for the whole of its length · its deadline (step_timeout) ended renewal and it ran out."""


class Renews(Protocol):
    """What a heartbeat needs of one shard; `Transitions` is one."""

    async def renew(
        self, worker: str, items: Iterable[tuple[str, str]], *, alive_ms: int, lease_ms: int
    ) -> list[str]: ...


class Link(Protocol):
    """What a heartbeat needs of its own connections; `Store` is one."""

    @property
    def shards(self) -> Sequence[Renews]: ...

    async def aclose(self) -> None: ...


class Lost(NamedTuple):
    """A lease that the worker holds no more: stop its entry, write nothing for it."""

    item: str
    token: str
    reason: Reason


@dataclass(slots=True, eq=False)
class Hold:
    """One held lease.

    The worker may move `deadline` (`time.monotonic()` seconds, None = never) as steps begin and
    end; past it the lease isn't renewed. `safe_from` and `told` belong to the heartbeat's thread.
    """

    item: str
    token: str
    shard: int
    deadline: float | None
    safe_from: float
    told: bool = False


class Heartbeat:
    """The heartbeat of one worker process.

    `open_link` runs in the heartbeat's thread and loop and opens connections that are its own.
    `on_lost` runs in the loop that called `start`; it must ignore a pair (item, token) that the
    worker has finished with or whose last commit is on its way: a lease released a moment before it
    was renewed looks lost.

        heartbeat = Heartbeat(worker_id, lambda: Store.open(url, clock=clock), on_lost)
        heartbeat.start()
        await heartbeat.alive()  # before the first lease: a lease of an unknown worker is a suspect
        hold = heartbeat.hold(item, token, shard)
        hold.deadline = time.monotonic() + 7200.0
        heartbeat.drop(item, token)
        await heartbeat.stop()

    `interval` in seconds. `hold` and `drop` are called from the worker's loop only.
    """

    def __init__(
        self,
        worker: str,
        open_link: Callable[[], Awaitable[Link]],
        on_lost: Callable[[list[Lost]], object],
        *,
        interval: float = 6.0,
        lease_ms: int = 20_000,
        alive_ms: int = 20_000,
        logger: logging.Logger | None = None,
    ) -> None:
        if not 0 < interval * 1000 < min(lease_ms, alive_ms):
            raise ValueError(
                f"interval={interval:g} s must be shorter than lease_ms={lease_ms} and "
                f"alive_ms={alive_ms}; write a third of them or less"
            )
        self._worker = worker
        self._open_link = open_link
        self._on_lost = on_lost
        self._interval = interval
        self._lease_ms = lease_ms
        self._lease = lease_ms / 1000
        self._alive_ms = alive_ms
        self._logger = logger or logging.getLogger("stepwell.heartbeat")
        # Written by the worker's loop, only read (copied) by the thread. `dict.copy` of str keys
        # runs no Python code, so it is one step under the GIL; iterating is not.
        self._held: dict[str, Hold] = {}
        self._last_beat: float | None = None
        self._trouble = ""
        self._home: asyncio.AbstractEventLoop | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._alive = asyncio.Event()  # of the home loop, as is _ended
        self._ended = asyncio.Event()
        self._stopping = asyncio.Event()  # of the own loop

    def start(self) -> None:
        """Start the thread; call it in the worker's running loop, once."""
        assert self._thread is None, "a Heartbeat starts once"
        self._home = asyncio.get_running_loop()
        # Made here, so that stop() finds it however early it comes.
        self._own = asyncio.new_event_loop()
        self._thread = Thread(target=self._main, name="stepwell-heartbeat", daemon=True)
        self._thread.start()

    async def alive(self) -> None:
        """Wait until every shard has heard the first heartbeat."""
        await self._alive.wait()

    async def stop(self) -> None:
        """End the thread and close its connections; held leases are renewed no more. Idempotent."""
        if self._thread is None:
            return
        assert self._own is not None
        try:
            self._own.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:
            pass  # its loop is closed: the thread ended already
        await self._ended.wait()
        self._thread.join()

    @property
    def age(self) -> float | None:
        """Seconds since all shards last heard a heartbeat; None before the first."""
        return None if self._last_beat is None else time.monotonic() - self._last_beat

    def hold(self, item: str, token: str, shard: int, deadline: float | None = None) -> Hold:
        """Renew the lease of `item` from now on; it replaces an older lease of the same item."""
        held = Hold(item, token, shard, deadline, time.monotonic())
        self._held[item] = held
        return held

    def drop(self, item: str, token: str) -> None:
        """Renew it no more. Nothing happens when `item` is held by a newer token, or not at all."""
        held = self._held.get(item)
        if held is not None and held.token == token:
            del self._held[item]

    def _main(self) -> None:
        own = self._own
        assert own is not None
        try:
            with asyncio.Runner(loop_factory=lambda: own) as runner:
                runner.run(self._run())
        finally:
            self._tell(self._ended.set)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._beats()), group.create_task(self._fences())]
            await self._stopping.wait()
            for task in tasks:
                task.cancel()

    async def _beats(self) -> None:
        link = await self._connect()
        try:
            while True:
                begun = time.monotonic()
                healthy = await self._beat(link.shards)
                if healthy:
                    self._last_beat = begun
                    self._recovered()
                    self._tell(self._alive.set)
                # Jitter, so that the workers of one deploy don't beat together for ever.
                pause = uniform(0.9, 1.0) * (
                    self._interval if healthy else min(RETRY, self._interval)
                )
                await asyncio.sleep(max(0.0, begun + pause - time.monotonic()))
        finally:
            await link.aclose()

    async def _connect(self) -> Link:
        while True:
            try:
                return await self._open_link()
            except _TROUBLE as error:
                self._failed(error)
            except Exception:
                self._logger.exception("the heartbeat can't open its connections; trying again")
            await asyncio.sleep(uniform(RETRY / 2, RETRY))

    async def _beat(self, shards: Sequence[Renews]) -> bool:
        """One round over all shards, also those without leases; False if one didn't answer."""
        now = time.monotonic()
        batches: list[list[Hold]] = [[] for _ in shards]
        for hold in self._held.copy().values():
            if not hold.told and (hold.deadline is None or now < hold.deadline):
                batches[hold.shard].append(hold)
        renewals = (
            self._renew(shard, batch[first : first + CHUNK])
            for shard, batch in zip(shards, batches, strict=True)
            for first in range(0, max(1, len(batch)), CHUNK)
        )
        return all(await asyncio.gather(*renewals))

    async def _renew(self, shard: Renews, batch: list[Hold]) -> bool:
        # Taken before sending: the server counts the lease from later, so ours ends first.
        sent = time.monotonic()
        items = [(hold.item, hold.token) for hold in batch]
        try:
            # A renewal resends itself for ever; without a limit one deaf shard would stop the rest.
            async with asyncio.timeout(self._interval):
                lost = await shard.renew(
                    self._worker, items, alive_ms=self._alive_ms, lease_ms=self._lease_ms
                )
        except _TROUBLE as error:
            self._failed(error)
            return False
        except Exception:
            self._logger.exception("a heartbeat failed; trying again")
            return False
        gone = set(lost)
        for hold in batch:
            if hold.item not in gone:
                hold.safe_from = sent
        self._report([(hold, "taken") for hold in batch if hold.item in gone])
        return True

    async def _fences(self) -> None:
        """Report leases that may have run out on the server, whether or not it can be asked."""
        while True:
            now = time.monotonic()
            lapsed: list[tuple[Hold, Reason]] = []
            oldest = now
            for hold in self._held.copy().values():
                if hold.told:
                    continue
                if hold.safe_from + self._lease <= now:
                    over = hold.deadline is not None and hold.deadline <= now
                    lapsed.append((hold, "timeout" if over else "unrenewed"))
                else:
                    oldest = min(oldest, hold.safe_from)
            self._report(lapsed)
            # A lease taken meanwhile is younger than `oldest`: none runs out before the next look.
            await asyncio.sleep(oldest + self._lease - now)

    def _report(self, lost: list[tuple[Hold, Reason]]) -> None:
        told: list[Lost] = []
        for hold, reason in lost:
            if not hold.told and self._held.get(hold.item) is hold:
                hold.told = True
                told.append(Lost(hold.item, hold.token, reason))
        if told:
            self._tell(self._on_lost, told)

    def _failed(self, error: Exception) -> None:
        if not self._trouble:
            self._trouble = str(error) or type(error).__name__
            self._logger.warning("the heartbeat doesn't get through: %s", self._trouble)

    def _recovered(self) -> None:
        if self._trouble:
            self._trouble = ""
            self._logger.info("the heartbeat gets through again")

    def _tell(self, what: Callable[..., object], *args: object) -> None:
        assert self._home is not None
        try:
            self._home.call_soon_threadsafe(what, *args)
        except RuntimeError:
            pass  # the worker's loop is closed: nobody is left to tell
