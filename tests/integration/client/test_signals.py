"""Signals between shards: one receiver, no conflict with the gone, held values."""

import pytest

from stepwell.events import Event, encode_event
from stepwell.ids import run_id
from stepwell.serde.values import pack
from stepwell_engine.signals import reserve_signal, send_signal
from stepwell_engine.store.store import Store
from tests.integration.client.conftest import Hands

pytestmark = pytest.mark.anyio

STEP = "A" * 16


async def leased(hands: Hands, n: int) -> tuple[str, str]:
    """A run that a worker holds, on the n-th shard, and its token."""
    shard = n % len(hands.store.shards)
    run = run_id(1_700_000_000_000 + n, f"e{n}", "shop", "ship", shard)
    await hands.create(run, "ship", encode_event(Event("a/b")), run)
    return run, (await hands.lease(run)).token


async def park(hands: Hands, run: str, token: str) -> None:
    head = pack(["signal", "s", 1, {"signal": "go"}])
    reply = await hands.store.of_run(run).commit(
        run, "", token, 0, ("S",), ("g", STEP, 60_000, head)
    )
    assert reply[0] == b"OK"


async def record(hands: Hands, run: str) -> bytes | None:
    key = hands.store.of_run(run).keys.run(run)
    found: bytes | None = await hands.store.server.call(key, "HGET", key, f"s:{STEP}")
    return found


async def test_a_signal_reaches_the_run_that_waits(store: Store, hands: Hands) -> None:
    run, token = await leased(hands, 3)
    assert (await reserve_signal(store, "go", run, STEP, timeout_ms=60_000)).taken
    await park(hands, run, token)
    assert await send_signal(store, "go", pack("now")) == run
    assert pack("now") in (await record(hands, run) or b"")
    assert await send_signal(store, "go", pack("again")) is None


async def test_a_signal_may_come_before_the_wait_is_written(store: Store, hands: Hands) -> None:
    run, token = await leased(hands, 1)
    await reserve_signal(store, "go", run, STEP, timeout_ms=60_000)
    assert await send_signal(store, "go", pack(1)) == run
    head = pack(["signal", "s", 1, {}])
    reply = await store.of_run(run).commit(run, "", token, 0, ("S",), ("g", STEP, 60_000, head))
    assert reply[0] == b"AGAIN"


async def test_nobody_waits(store: Store, hands: Hands) -> None:
    assert await send_signal(store, "go", pack(1)) is None
    run, _ = await leased(hands, 0)
    assert (await reserve_signal(store, "go", run, STEP, timeout_ms=1_000)).value is None


async def test_a_held_signal_is_delivered_to_the_next_who_waits(store: Store, hands: Hands) -> None:
    assert await send_signal(store, "go", pack({"by": "mia"}), hold_ms=60_000) is None
    run, _ = await leased(hands, 2)
    reserved = await reserve_signal(store, "go", run, STEP, timeout_ms=60_000)
    assert reserved == (True, f"{run}:{STEP}", pack({"by": "mia"}))
    assert pack({"by": "mia"}) in (await record(hands, run) or b"")
    other, _ = await leased(hands, 3)
    assert (await reserve_signal(store, "go", other, STEP, timeout_ms=1)).value is None


async def test_one_run_waits_for_a_name(store: Store, hands: Hands) -> None:
    run, token = await leased(hands, 1)
    other, _ = await leased(hands, 2)
    await reserve_signal(store, "go", run, STEP, timeout_ms=60_000)
    # Reserved, and its wait is about to be written.
    refused = await reserve_signal(store, "go", other, STEP, timeout_ms=60_000)
    assert refused == (False, f"{run}:{STEP}", None)
    await park(hands, run, token)
    assert not (await reserve_signal(store, "go", other, STEP, timeout_ms=60_000)).taken
    # The same step again: its commit was lost, and it was entered again.
    assert (await reserve_signal(store, "go", run, STEP, timeout_ms=60_000)).taken
    taken = await reserve_signal(store, "go", other, STEP, timeout_ms=60_000, replace=True)
    assert taken.taken
    assert await send_signal(store, "go", pack(1)) == other
    assert await record(hands, run) is None


async def test_an_ended_holder_is_no_conflict(store: Store, hands: Hands) -> None:
    run, token = await leased(hands, 1)
    other, _ = await leased(hands, 2)
    await reserve_signal(store, "go", run, STEP, timeout_ms=60_000)
    await park(hands, run, token)
    await store.of_run(run).cancel(run, error=pack({}), grace_ms=1)
    assert (await reserve_signal(store, "go", other, STEP, timeout_ms=60_000)).taken


async def test_a_signal_for_an_ended_holder_is_held(store: Store, hands: Hands) -> None:
    run, token = await leased(hands, 1)
    await reserve_signal(store, "go", run, STEP, timeout_ms=60_000)
    await park(hands, run, token)
    await store.of_run(run).cancel(run, error=pack({}), grace_ms=1)
    assert await send_signal(store, "go", pack(1), hold_ms=60_000) is None
    other, _ = await leased(hands, 2)
    held = await reserve_signal(store, "go", other, STEP, timeout_ms=60_000)
    assert held.value == pack(1)
