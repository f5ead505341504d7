"""The hot commits of one loop turn, of all runs of a shard, in one script call each: step results, and functions that returned."""

import asyncio
from collections.abc import Sequence
from contextvars import copy_context
from typing import Any

from stepwell_engine.store.transitions import Arg, Transitions

# Bounds how long one call holds the server: about a millisecond.
MOST = 200

# How many runs go on in one turn of the loop. All at once would move in step: the server idle while they run, they while it writes.
STRIDE = 64

Call = tuple[tuple[Arg, ...], "asyncio.Future[Any]"]


class Batcher:
    """Gathers calls and sends them once the loop's turn is over; each caller gets its own reply.

    An order among them is not needed: a run's next commit waits for the reply to its last.
    """

    __slots__ = ("_context", "_loop", "_records", "_returns", "_scheduled", "_shard", "_tasks")

    def __init__(self, shard: Transitions) -> None:
        self._shard = shard
        self._loop = asyncio.get_running_loop()
        self._records: list[Call] = []
        self._returns: list[Call] = []
        self._scheduled = False
        self._context = copy_context()
        self._tasks: set[asyncio.Task[None]] = set()

    def record(self, *call: Arg) -> "asyncio.Future[bytes | None]":
        """A step's result: (run, step, token, name, record) → dv, None when commit.lua must decide."""
        return self._add(self._records, call)

    def returned(self, *call: Arg) -> "asyncio.Future[int]":
        """A function returned: (run, token, output) → 1, 0 when commit.lua must decide."""
        return self._add(self._returns, call)

    def _add(self, calls: list[Call], call: tuple[Arg, ...]) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = self._loop.create_future()
        calls.append((call, future))
        if not self._scheduled:
            self._scheduled = True
            # In a context of its own: what is sent here is nobody's branch.
            self._loop.call_soon(self._flush, context=self._context)
        return future

    def _flush(self) -> None:
        self._scheduled = False
        records, self._records = self._records, []
        returns, self._returns = self._returns, []
        for start in range(0, len(records), MOST):
            self._send(self._shard.record, records[start : start + MOST])
        for start in range(0, len(returns), MOST):
            self._send(self._shard.returned, returns[start : start + MOST])

    def _send(self, script: Any, calls: list[Call]) -> None:
        # The call is queued right here, so it leaves with this turn's other commands.
        reply = script([argument for call, _ in calls for argument in call])
        task = self._loop.create_task(_settle(reply, [future for _, future in calls]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _settle(reply: Any, futures: "Sequence[asyncio.Future[Any]]") -> None:
    try:
        results = await reply
        for index, (future, result) in enumerate(zip(futures, results, strict=True), 1):
            if not future.done():
                future.set_result(result)
            if index % STRIDE == 0:
                await asyncio.sleep(0)
    except BaseException as error:
        # Whatever it is, nobody must wait for ever: each caller decides on its own.
        for future in futures:
            if not future.done():
                future.set_exception(error) if isinstance(error, Exception) else future.cancel()
        if not isinstance(error, Exception):
            raise
