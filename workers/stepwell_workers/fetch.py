"""Getting work: lease while there are free slots, block on the doorbells while there is none.

A ring names a shard that has work for an app; at most one waits per shard and app. A ring may be lost with the worker that took it, so each
block ends after `BLOCK` seconds with one look of its own: that is the bound on how long such work can wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from stepwell.errors import StepwellError
from stepwell_engine.loop import boot_seconds
from stepwell_engine.store.transitions import Leased, Transitions
from stepwell_workers.batching import STRIDE
from stepwell_workers.standing import StandingLease

if TYPE_CHECKING:
    from stepwell_engine.store.store import Store

BLOCK = 10.0
MOST = 200
# Leases are worth batching: with fewer free slots than this share, give runs a moment to end.
LOW_WATER = 4
MOMENT = 0.001


class Fetcher:
    """Leases items of `lanes` and hands each to `begin`, never more than `slots` at once."""

    def __init__(
        self,
        store: "Store",
        lanes: Sequence[str],
        worker_id: str,
        *,
        slots: int,
        lease_ms: int,
        begin: Callable[[Transitions, Leased], None],
        on_poll: Callable[[], None],
    ) -> None:
        self._store = store
        self._lanes = list(lanes)
        self._worker_id = worker_id
        self._slots = slots
        self._lease_ms = lease_ms
        self._begin = begin
        self._on_poll = on_poll
        self._active = 0
        self._asked = 0  # slots that leases on their way may fill
        self._suspects = 0
        self._last: int = -1
        self._serial = 0
        self._rung: set[int] = set(range(len(store.shards)))
        self._heard: dict[str, int] = {}  # bells that rang, and their shards
        self._changed = asyncio.Event()
        self._rest = asyncio.Event()
        self._beginning: asyncio.TaskGroup
        self._standing = StandingLease(store, worker_id, lanes, slots=slots, lease_ms=lease_ms)
        self.stopping = False

    @property
    def saturated(self) -> bool:
        """No slot is free."""
        return self._active >= self._slots

    @property
    def _free(self) -> int:
        return self._slots - self._active - self._standing.kept

    @property
    def active(self) -> int:
        """Items in hand."""
        return self._active

    def released(self, *, suspect: bool) -> None:
        """An item's entry is over, or its last commit is on its way: the next lease may share its round trip."""
        self._active -= 1
        if suspect:
            self._suspects -= 1
            self._rung.update(range(len(self._store.shards)))
        self._changed.set()
        self._rest.set()

    def stop(self) -> None:
        """Lease no more."""
        self.stopping = True
        self._changed.set()

    async def lease_loop(self) -> None:
        """Lease from the shards that rang, until each has nothing left; returns once all that was leased has begun."""
        async with asyncio.TaskGroup() as self._beginning:
            await self._lease_on()

    async def _lease_on(self) -> None:
        hot: set[int] = set()
        while not self.stopping:
            self._changed.clear()
            hot |= self._rung | set(self._heard.values())
            self._rung.clear()
            free = self._free
            if self._heard and free <= 0:
                await self._ring_on()
            if not hot or free <= 0:
                await self._changed.wait()
                continue
            if free < self._slots // LOW_WATER:
                await asyncio.sleep(MOMENT)
                free = self._free
            # In turn: with few slots, a busy shard must not starve those after it.
            chosen = sorted(hot, key=self._turn)[:free]
            self._last = chosen[-1]
            self._heard = (
                {b: s for b, s in self._heard.items() if s not in chosen} if self._heard else {}
            )
            each = min(MOST, max(1, free // len(chosen)))
            try:
                if len(chosen) == 1:
                    counts = [await self._lease(chosen[0], each)]
                else:
                    counts = await asyncio.gather(*(self._lease(shard, each) for shard in chosen))
                    await self._lease_suspect(chosen[1:])
            except StepwellError:
                await asyncio.sleep(1.0)
                continue
            hot -= {shard for shard, count in zip(chosen, counts, strict=True) if count < each}
            self._on_poll()

    async def _ring_on(self) -> None:
        """Rings for which no slot is left are for others: without them, these would sleep on until their block ends."""
        bells, self._heard = self._heard, {}
        for bell in bells:
            call = self._store.server.call
            try:
                # One ring at most waits in a bell.
                await asyncio.gather(
                    call(bell, "RPUSH", bell, "1"), call(bell, "LTRIM", bell, 0, 0)
                )
            except StepwellError:
                pass  # lost with its reply, as it may: the bound is BLOCK

    def _turn(self, shard: int) -> tuple[bool, int]:
        return shard <= self._last, shard

    async def _lease_suspect(self, shards: Sequence[int]) -> None:
        """Ask the other shards for the one suspect that may be here: together, only one could be asked."""
        for shard in shards:
            if self._suspects or self.saturated or self.stopping:
                return
            await self._lease(shard, 1)

    async def _lease(self, shard: int, want: int) -> int:
        transitions = self._store.shards[shard]
        allowance = 1 if self._suspects == 0 else 0
        self._suspects += allowance
        taken: list[Leased] = []
        asked = boot_seconds()
        self._asked += want
        try:
            taken = await transitions.lease(
                self._worker_id,
                self._prefix(),
                self._lanes,
                want=want,
                lease_ms=self._lease_ms,
                suspects=allowance,
            )
            count = len(taken)
            taken = await self._still_held(transitions, taken, asked)
        finally:
            self._asked -= want
            self._rest.set()
            self._suspects -= allowance
        self._start(transitions, taken)
        # What the shard gave, lost or not: a full hand says that it may have more.
        return count

    def _prefix(self) -> str:
        self._serial += 1
        return f"{self._worker_id[-6:]}.{self._serial}"

    def _start(self, transitions: Transitions, taken: list[Leased]) -> None:
        self._active += len(taken)
        for leased in taken:
            self._suspects += leased.suspect
        if len(taken) <= STRIDE:
            for leased in taken:
                self._begin(transitions, leased)
        else:
            # Beside the next lease: the server takes that from the queue while these run.
            self._beginning.create_task(self._begin_all(transitions, taken))

    async def _begin_all(self, transitions: Transitions, taken: list[Leased]) -> None:
        for index, leased in enumerate(taken, 1):
            self._begin(transitions, leased)
            if index % STRIDE == 0:
                await asyncio.sleep(0)

    async def _still_held(
        self, transitions: Transitions, taken: list[Leased], asked: float
    ) -> list[Leased]:
        """Of leases that were long on their way, those that have not run out: the others may be somebody's by now, even this worker's."""
        if not taken or boot_seconds() - asked <= self._lease_ms / 2000:
            return taken
        tokens = {leased.item: leased.token for leased in taken}
        lost = await transitions.renew(
            self._worker_id,
            tokens.items(),
            alive_ms=self._lease_ms * 3 // 4,
            lease_ms=self._lease_ms,
        )
        return [leased for leased in taken if leased.item not in lost]

    def bell_groups(self) -> list[list[tuple[str, int]]]:
        """The bells that one blocking call may watch together, with their shards."""
        shard_of = {
            self._store.keys(shard).build("bell", lane): shard
            for shard in range(len(self._store.shards))
            for lane in self._lanes
        }
        groups = self._store.server.same_node(shard_of)
        return [[(key, shard_of[key]) for key in group] for group in groups]

    async def bell_loop(self, group: Sequence[tuple[str, int]]) -> None:
        """Wait for rings of one group of bells, while there are free slots."""
        shards = dict(group)
        keys = list(shards)
        while not self.stopping:
            if self.saturated:
                await asyncio.sleep(MOMENT * 10)
                continue
            try:
                reply = await self._listen(keys, shards)
            except StepwellError:
                # A ring may have been popped and lost with its reply.
                await asyncio.sleep(1.0)
                reply = None
            else:
                self._on_poll()
            if reply is None:
                self._rung.update(shards.values())
            else:
                bell = reply[0].decode()
                self._heard[bell] = shards[bell]
            self._changed.set()
            # The lease leaves first: it is what somebody waits for.
            for _ in range(3):
                await asyncio.sleep(0)

    async def _listen(self, bells: list[str], shards: dict[str, int]) -> Any:
        """BLPOP's reply. An idle worker has a lease stand behind it, if one shard is all that may ring."""
        one = shards[bells[0]]
        if self._standing.share and all(shard == one for shard in shards.values()):
            await self._at_rest()
            if self.stopping:
                return None
            if not (self._active or self._asked or self._standing.kept):
                return await self._stand(bells, one)
        return await self._store.server.blocking(
            bells[0], "BLPOP", *bells, BLOCK, timeout=BLOCK, label="bell"
        )

    async def _at_rest(self) -> None:
        """A moment for what the last ring brought; until it is over, rings wait in the bell, or are another worker's."""
        end = asyncio.get_running_loop().time() + 2 * MOMENT
        while self._active or self._asked:
            self._rest.clear()
            # A lease on its way may fill every slot: until its reply there is none to keep free.
            try:
                async with asyncio.timeout_at(None if self._asked else end):
                    await self._rest.wait()
            except TimeoutError:
                return

    async def _stand(self, bells: list[str], shard: int) -> Any:
        transitions, asked = self._store.shards[shard], boot_seconds()
        try:
            reply, taken = await self._standing.wait(transitions, bells, self._prefix(), BLOCK)
            self._start(transitions, await self._still_held(transitions, taken, asked))
            await asyncio.sleep(0)  # what begins goes first
        finally:
            self._standing.over()
        return reply

    async def ring(self) -> None:
        """The last word of a worker that listens no more: a ring that went to it is another's, if there is work."""
        call, bells, asked = self._store.server.call, dict[str, int](), list[Awaitable[Any]]()
        for shard, transitions in enumerate(self._store.shards):
            for lane in self._lanes:
                build = transitions.keys.build
                waiting = build("ready_fns", lane), build("suspects", lane)
                bells[build("bell", lane)] = shard
                asked.append(call(waiting[0], "EXISTS", *waiting))
        try:
            counts = await asyncio.gather(*asked)
        except StepwellError:
            return  # the server is away: who comes back to it looks by himself
        self._heard = {b: s for (b, s), n in zip(bells.items(), counts, strict=True) if n}
        await self._ring_on()

    async def withdraw(self) -> None:
        """After `stop`: what the server has leased to this worker is told, and begins, or never is leased."""
        await self._standing.withdraw()
