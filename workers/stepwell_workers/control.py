"""The worker's control lists: results that reached its leased runs, and cancels."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stepwell.errors import StepwellError

if TYPE_CHECKING:
    from stepwell_engine.store.store import Store

BLOCK = 10.0
MORE = 256


def control_groups(store: "Store", worker_id: str) -> list[list[str]]:
    """The control lists that one blocking call may watch together."""
    keys = [shard.keys.build("control", worker_id) for shard in store.shards]
    return store.server.same_node(keys)


async def control_loop(
    store: "Store", keys: Sequence[str], on_message: Callable[[bytes], None]
) -> None:
    """Hand each message to `on_message`.

    A message lost with its connection is made good: results are seen by the entry's own next commit and by the worker's look at
    long-parked steps, a cancel by the reply to the next commit and by the end of its grace.
    """
    while True:
        try:
            reply = await store.server.blocking(
                keys[0], "BLPOP", *keys, BLOCK, timeout=BLOCK, label="control"
            )
            if reply is None:
                continue
            on_message(reply[1])
            for message in await store.server.call(reply[0].decode(), "LPOP", reply[0], MORE) or ():
                on_message(message)
        except StepwellError:
            await asyncio.sleep(1.0)
