"""Signals: a name that one run at a time waits for, and values sent to that name.

The name's reservation and the waiting run may be on two shards. The run decides: a value is
received when the run's shard took it; a reservation whose run wants it no more counts as none.
"""

from typing import Final, NamedTuple

from stepwell.errors import ServerUnavailableError
from stepwell_engine.routing import signal_route
from stepwell_engine.store.store import Store

# A reservation outlives its wait a little: the wait's own timer decides, this only frees the name.
_GRACE_MS: Final = 60_000
_MAX_ROUNDS: Final = 16


class Reservation(NamedTuple):
    """`taken`: the step may wait. `holder` ("run:step") has the name now. `value`: was held for us.

    A held value has been delivered to the step already: its record is on the server.
    """

    taken: bool
    holder: str
    value: bytes | None = None


async def send_signal(store: Store, signal: str, value: bytes, *, hold_ms: int = 0) -> str | None:
    """Send `value` (packed) to whoever waits for `signal`; the id of the run that received it.

    None when nobody waits: then the value is held for `hold_ms`, if that isn't 0, for the next who
    does. Errors as for any transition.
    """
    hash_, shard = signal_route(signal, len(store.shards))
    home = store.shards[shard]
    stale = ""
    for _ in range(_MAX_ROUNDS):
        holder = await home.signal_send(hash_, value, hold_ms=hold_ms, stale=stale)
        if not holder:
            return None
        run, step = holder[:26], holder[27:]
        if await store.of_run(run).resolve(run, step, "", "v", value, early=True):
            # Freed after the delivery: whoever comes between finds a holder that wants no more.
            await home.signal_free(hash_, holder)
            return run
        stale = holder
    raise _contended(signal)


async def reserve_signal(
    store: Store, signal: str, run_id: str, step: str, *, timeout_ms: int, replace: bool = False
) -> Reservation:
    """Claim `signal` for a step, before its wait is written.

    Not taken when another run that still waits has it, unless `replace`. The holder is asked, so a
    reservation left by an ended run or a timed-out wait is no conflict.
    """
    hash_, shard = signal_route(signal, len(store.shards))
    home = store.shards[shard]
    gone = ""
    for _ in range(_MAX_ROUNDS):
        taken, holder, value = await home.signal_reserve(
            hash_, run_id, step, expiry_ms=timeout_ms + _GRACE_MS, replace=gone
        )
        if taken:
            if value is not None:
                # The script took it out of its keeping: on the run's shard before we may die.
                await store.of_run(run_id).resolve(run_id, step, "", "v", value, early=True)
                await home.signal_free(hash_, holder)
            return Reservation(True, holder, value)
        if not replace and await still_waits(store, holder):
            return Reservation(False, holder)
        gone = holder
    raise _contended(signal)


async def still_waits(store: Store, holder: str) -> bool:
    """Whether the step ("run:step") that reserved a signal can still receive it.

    A run that reserved and has not written its wait yet counts as waiting: it is about to, or will
    be entered again and reserve it again.
    """
    run, step = holder[:26], holder[27:]
    key = store.of_run(run).keys.run(run)
    status, record = await store.server.call(key, "HMGET", key, "st", f"s:{step}")
    return status in (b"q", b"r") and record is None


def _contended(signal: str) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"signal {signal!r} changes hands faster than it can be followed; try again"
    )
