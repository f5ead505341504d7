"""The audit after a test: every key known, every run somewhere, nothing left behind."""

from stepwell_engine.audit import Caller, Violation, audit
from stepwell_engine.store.keys import Keys


async def violations(
    server: Caller, namespace: str = "stepwell", shards: int = 1
) -> list[Violation]:
    """What is wrong in a namespace that nobody is writing to just now."""
    found: list[Violation] = []
    for n in range(shards):
        keys = Keys(namespace, n)
        found += await audit(server, keys)
        key = keys.build("undelivered")
        if kept := await server.call(key, "HLEN", key):
            found.append(Violation("undelivered", key, f"{kept} messages are set aside"))
    return found


async def assert_sound(server: Caller, namespace: str = "stepwell", shards: int = 1) -> None:
    """Fail with one line for each violation."""
    found = await violations(server, namespace, shards)
    assert not found, "\n".join(str(v) for v in found)
