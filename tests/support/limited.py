"""One function with limits on one shard, driven by hand: it is registered, it gets runs, and they begin and end."""

from typing import Any

from stepwell_engine.audit_gates import Gate, home_of
from stepwell_engine.store.transitions import Arg, Leased
from tests.support.shard import Shard


async def say(
    shard: Shard, *limits: Arg, rate: tuple[Arg, Arg] = ("", ""), version: int = 1, shards: int = 1,
    told: bool = False,
) -> None:  # fmt: skip
    """What function 1's gates allow."""
    both = [*limits, "", ""][:2]
    row = ("1", "app", *both, *rate, shards)
    assert await shard.t.configure(version, [row], most=500, told=told) == []


async def add(shard: Shard, key: str, us: int = 0, **given: int) -> str:
    """A run; `given`: the limits that its event, accepted at `us`, gives some of the gates."""
    ids = {name: part[2:] for part in key.split(",") for name in given if part[2:].startswith(name)}
    lm = " ".join([str(us), *(f"{ids[name]}={limit}" for name, limit in given.items())])
    flow: dict[str, Any] = {"lm": lm} if given else {}
    return await shard.create(key=key, flow=flow)


async def runs(shard: Shard, want: int = 50) -> list[str]:
    return [item.run_id for item in await shard.lease(want)]


async def end(shard: Shard, *items: Leased) -> None:
    for item in items:
        assert await shard.commit(item, "F", "c", b"", b"") == "OK"


def home(part: str) -> int:
    """The shard, of four, where a shared gate's slots are: not that of function 1, so it asks for permits."""
    found = home_of(Gate(part[0], part[2:]), 4, 0)
    assert found != 0
    return found
