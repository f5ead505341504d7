"""The commits of one entry of a run: what is written, in order, under its lease's token."""

import asyncio
from collections.abc import Callable, Sequence

from stepwell_engine.store.transitions import Arg, Transitions
from stepwell_workers.batching import Batcher

# The replies of commit.lua after which an entry may go on.
GOES_ON = frozenset({"OK", "AGAIN", "STUCK"})


class Journal:
    """Sends commits and follows `dv`, the count of results that reached the run from outside.

    `on_news` is called when a reply shows a `dv` that was not known: something arrived for a parked step. `held` operations (timers and
    waits of parked steps) are kept for the next commit, so that parking and suspending is one write.
    """

    __slots__ = ("_batcher", "_shard", "dv", "held", "on_news", "run_id", "step", "token")

    def __init__(
        self,
        shard: Transitions,
        batcher: Batcher,
        run_id: str,
        step: str,
        token: str,
        dv: int,
        on_news: Callable[[], None],
    ) -> None:
        self._shard = shard
        self._batcher = batcher
        self.on_news = on_news
        self.run_id = run_id
        self.step = step
        self.token = token
        self.dv = dv
        self.held: list[Arg] = []

    async def commit(
        self, clause: Sequence[Arg], ops: Sequence[Arg] = (), *, with_held: bool = True
    ) -> str:
        """One commit; returns the reply's code."""
        if with_held and self.held:
            ops = (*self.held, *ops)
            self.held = []
        reply = await self._shard.commit(self.run_id, self.step, self.token, self.dv, clause, ops)
        code = reply[0].decode()
        if int(reply[1]) != self.dv and code == "OK":
            self.on_news()
        return code

    def record(self, name: str, record: bytes) -> "asyncio.Future[bytes | None]":
        """One step's result, with nothing else to write. What it gives goes to `recorded`."""
        return self._batcher.record(self.run_id, self.step, self.token, name, record)

    async def recorded(self, dv: bytes | None, name: str, record: bytes) -> str:
        """The code of a `record` that gave `dv`."""
        if dv is None:
            return await self.commit(("N",), ("d", name, record, b"", 0))
        if int(dv) != self.dv:
            self.on_news()
        return "OK"

    async def returned(self, output: bytes) -> str:
        """The function returned, with nothing else to write."""
        if await self._batcher.returned(self.run_id, self.token, output):
            return "OK"
        return await self.commit(("F", "c", output))

    async def go_on(self, ops: Sequence[Arg]) -> str:
        """A commit in the middle of an entry."""
        return await self.commit(("N",), ops)
