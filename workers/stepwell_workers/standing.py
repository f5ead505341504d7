"""A standing lease: it waits in the server right behind the block on a bell, and is run in the very moment the bell rings.

To ring, wake the worker, hear its question and answer would be a round trip more, in an idle system a quarter of the way from `send` to
the function's first line. It is an advance, not a promise: what it leaves, and suspects, are for the lease that follows each ring.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

from redis.exceptions import ResponseError

from stepwell.clock import SystemClock
from stepwell.errors import StepwellError
from stepwell_engine.store.shapes import leased
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Leased, Transitions

MOST: Final = 32
_BYTES: Final = (
    65_536  # a reply that leaves in one write: a connection that is killed has told all or nothing
)


class StandingLease:
    """At most one at a time for a worker: it keeps slots free while it waits."""

    def __init__(
        self, store: Store, worker_id: str, lanes: Sequence[str], *, slots: int, lease_ms: int
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._lanes = lanes
        self._lease_ms = lease_ms
        # In a Cluster a bell may move between the two commands; under a moved clock the lease would be of long ago.
        possible = store.server.only is not None and isinstance(store.clock, SystemClock)
        self.share = min(MOST, slots // 2) if possible else 0
        self.kept = 0
        self._ident = 0
        self._known = asyncio.Event()
        self._over = asyncio.Event()
        self._over.set()

    async def wait(
        self, transitions: Transitions, bells: Sequence[str], prefix: str, block: float
    ) -> tuple[Any, list[Leased]]:
        """Block on bells of one shard for up to `block` seconds; BLPOP's reply, and what was leased. Raises ServerError.

        `kept` slots are for what comes; the caller takes them back (`over`) when it has begun.
        """
        node = self._store.server.only
        assert node is not None
        self.kept, self._ident = self.share, 0
        self._known.clear()
        self._over.clear()
        then = transitions.lease_command(
            self._worker_id, prefix, self._lanes, want=self.share, lease_ms=self._lease_ms, max_bytes=_BYTES
        )  # fmt: skip
        rung, rows = await node.stand(
            ("BLPOP", *bells, block), then, timeout=block + 5.0, label="bell", on_id=self._stands
        )
        # An error (SCRIPT FLUSH) is as good as nothing.
        found = cast("list[Any]", rows) if isinstance(rows, list) else []
        return rung, [leased(row) for row in found]

    def over(self) -> None:
        """What came has begun, or nothing will come."""
        self.kept = 0
        self._known.set()
        self._over.set()

    def _stands(self, ident: int) -> None:
        self._ident = ident
        self._known.set()

    async def withdraw(self) -> None:
        """Lease nothing from now on; returns once what was leased has begun."""
        await self._known.wait() if not self._over.is_set() else None
        if self._over.is_set():
            return
        try:
            await self._store.server.call("", "CLIENT", "KILL", "ID", self._ident)
        except (StepwellError, ResponseError):
            return  # it may not: then it is closed from here, and a lease of that moment runs out
        await self._over.wait()
