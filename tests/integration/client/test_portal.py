"""`Client` on several loops, from threads that block, and after a fork."""

import asyncio
import subprocess
import sys
import threading

import pytest

from stepwell.client import Client
from stepwell.errors import (
    FunctionNotFoundError,
    RunNotFoundError,
)
from stepwell.events import Event
from stepwell.ids import run_id
from stepwell.middleware import MiddlewareSync
from stepwell_engine.embedded import EmbeddedServer

pytestmark = pytest.mark.anyio

NOWHERE = "redis://127.0.0.1:1"


def test_a_client_works_on_one_loop_after_another(fresh: EmbeddedServer) -> None:
    client = Client(app_id="shop", redis_url=fresh.url)

    async def once() -> str:
        try:
            return (await client.send(Event(name="a/b", id="same")))[0]
        finally:
            await client.aclose()

    assert asyncio.run(once()) == asyncio.run(once())


def test_blocking_calls_from_many_threads(fresh: EmbeddedServer) -> None:
    client = Client(app_id="shop", redis_url=fresh.url)
    ids: list[str] = []

    def work() -> None:
        for _ in range(20):
            ids.extend(client.send_sync(Event(name="a/b")))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 160
    assert fresh.command("XLEN", "{stepwell:0}:ev") == 160
    assert client.list_runs_sync().items == ()
    assert client.send_signal_sync("s") is None
    found = client.get_event_sync(ids[0])
    assert found is not None
    assert found.pending
    for call in (client.get_run_sync, client.wait_for_run_sync, client.cancel_run_sync):
        with pytest.raises(RunNotFoundError):
            call(run_id(1, "e", "shop", "ship", 0))
    with pytest.raises(FunctionNotFoundError):
        client.invoke_sync("shop-ship")
    client.close()
    assert not client._portal.running
    assert client.send_sync(Event(name="a/b"))
    client.close()


def test_a_blocking_call_on_the_portals_own_thread_is_refused(fresh: EmbeddedServer) -> None:
    class Wrong(MiddlewareSync):
        def before_send_events(self, events: list[Event]) -> None:
            self.client.send_sync(Event(name="a/b"))

    client = Client(app_id="shop", redis_url=fresh.url, middleware=[Wrong])
    with pytest.raises(RuntimeError, match="own event loop"):
        client.send_sync(Event(name="a/b"))
    client.close()


def test_a_forked_child_has_a_portal_of_its_own(fresh: EmbeddedServer) -> None:
    program = f"""
import os, stepwell.client, stepwell.events
client = stepwell.client.Client(app_id="shop", redis_url={fresh.url!r})
client.send_sync(stepwell.events.Event(name="a/b"))
child = os.fork()
client.send_sync(stepwell.events.Event(name="a/b"))
if child:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    assert fresh.command("XLEN", "{stepwell:0}:ev") == 3
