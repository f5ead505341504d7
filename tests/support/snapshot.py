"""All that a namespace holds, to be compared with what it holds later."""

from typing import Any

from stepwell_engine.store.store import Store


async def snapshot(store: Store) -> dict[bytes, Any]:
    """Every key of the namespace with its content; a stream's without its readers' positions."""
    server, found = store.server, {}
    workers = {shard.keys.build("workers").encode() for shard in store.shards}
    for root in (shard.keys.root for shard in store.shards):
        cursor: bytes | int = 0
        while True:
            cursor, keys = await server.call(
                root, "SCAN", cursor, "MATCH", f"{{{store.namespace}:*"
            )
            for key in keys:
                name = key.decode()
                kind = await server.call(name, "TYPE", key)
                read = ("XRANGE", key, "-", "+") if kind == b"stream" else ("DUMP", key)
                if key not in workers:  # who is alive is said by heartbeats, whoever holds what
                    found[key] = await server.call(name, *read)
            if int(cursor) == 0:
                break
    return found


def changed(before: dict[bytes, Any], after: dict[bytes, Any]) -> list[bytes]:
    """The keys that came, went or differ."""
    return sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
