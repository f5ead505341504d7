"""A standing lease: it waits in the server right behind the block on a bell, and is run in the very moment the bell rings.

To ring, wake the worker, hear its question and answer would be a round trip more, in an idle system a quarter of the way from `send` to
the function's first line. It is an advance, not a promise: what it leaves, and suspects, are for the lease that follows each ring.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from stepwell.clock import SystemClock
from stepwell.errors import StepwellError
from stepwell_engine.store.shapes import leased
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Leased, Transitions

# Few: what a worker that is stopped just then (SIGSTOP, a host that is gone) has leased waits until the lease runs out. They must begin in
# one stride (fetch.py).
MOST: Final = 4
# A reply that leaves in one write: a connection that is killed has told all or nothing.
_BYTES: Final = 32_768


class StandingLease:
    """At most one at a time for a worker: it keeps slots free while it waits."""

    def __init__(
        self, store: Store, worker_id: str, lanes: Sequence[str], *, slots: int, lease_ms: int
    ) -> None:
        self._node = store.server.only
        self._worker_id = worker_id
        self._lanes = lanes
        self._lease_ms = lease_ms
        # In a Cluster a bell may move between the two commands; under a moved clock the lease would be of long ago.
        possible = self._node is not None and isinstance(store.clock, SystemClock)
        self.share = min(MOST, slots // 2) if possible else 0
        self.kept = 0
        self._over = asyncio.Event()

    async def wait(
        self, transitions: Transitions, bells: Sequence[str], prefix: str, block: float
    ) -> tuple[Any, list[Leased]]:
        """Block on bells of one shard for up to `block` seconds; BLPOP's reply, and what was leased. Raises ServerError.

        `kept` slots are for what comes; the caller gives them back (`over`) when it has begun.
        """
        assert self._node is not None
        self.kept = self.share
        self._over.clear()
        script, argv = transitions.lease_command(
            self._worker_id, prefix, self._lanes, want=self.share, lease_ms=self._lease_ms, max_bytes=_BYTES
        )  # fmt: skip
        # No reply of the lease (FUNCTION FLUSH) is as good as an empty one.
        rung, rows = await self._node.stand(
            ("BLPOP", *bells, block),
            (*self._node.scripts.calling(script), *argv),
            timeout=block + 5.0,
            label="bell",
        )
        return rung, [leased(row) for row in rows or ()]

    def over(self) -> None:
        """What came has begun, or nothing will come."""
        self.kept = 0
        self._over.set()

    async def withdraw(self) -> None:
        """Lease nothing from now on; returns once what was leased has begun."""
        if not self.kept:
            return
        assert self._node is not None
        try:
            await self._node.unstand()
        except StepwellError:
            return  # the server is away, and so is the lease
        await self._over.wait()
