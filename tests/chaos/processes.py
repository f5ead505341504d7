"""Workers and coordinators as processes of their own, forked from a server that has imported everything, with short leases."""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess, parent_process
from pathlib import Path
from typing import Final, Literal

from stepwell_engine import timers
from stepwell_engine.coordinator import Coordinator, Settings
from stepwell_engine.store.store import Store
from stepwell_workers.worker import Worker
from tests.chaos import witness
from tests.chaos.app import make_client

Kind = Literal["worker", "coordinator"]

CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.chaos.processes"])

# What the first client of a process takes (the grammar of expressions above all) every child finds done.
make_client("redis://127.0.0.1:1", "none", 1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process belongs and where it writes."""

    url: str
    namespace: str
    shards: int
    folder: Path
    lease_ms: int = 1_000
    heartbeat_s: float = 0.2
    claim_ms: int = 600
    concurrency: int = 20

    @property
    def witness(self) -> Path:
        """The witness file of the whole namespace."""
        return self.folder / f"{self.namespace}.witness"

    @property
    def log(self) -> Path:
        """What its processes say."""
        return self.folder / f"{self.namespace}.log"


class Child:
    """A process of ours. `kill` is SIGKILL: nothing is said, nothing is flushed."""

    def __init__(self, kind: Kind, place: Place) -> None:
        self.kind = kind
        self._process: BaseProcess = CONTEXT.Process(target=_main, args=(kind, place), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def wait(self) -> None:
        """Until it is gone."""
        self._process.join()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Idempotent."""
        self._process.kill()
        self._process.join()

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)


def _main(kind: Kind, place: Place) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log = os.open(place.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {kind} {os.getpid()} %(name)s: %(message)s"
    )
    witness.open_at(str(place.witness))
    asyncio.run(_worker(place) if kind == "worker" else _coordinator(place))


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


async def _worker(place: Place) -> None:
    client = make_client(place.url, place.namespace, place.shards)
    worker = Worker(
        [client],
        lease_ms=place.lease_ms,
        heartbeat_s=place.heartbeat_s,
        concurrency=place.concurrency,
    )
    await _patiently(worker.start)
    await asyncio.Event().wait()


async def _coordinator(place: Place) -> None:
    # As for leases: 5 s would let a stopped victim wake before anybody took its work.
    setattr(timers, "HORIZON_MS", place.lease_ms // 5)  # noqa: B010 - it is Final to everybody else

    async def start() -> None:
        store = await Store.open(place.url, namespace=place.namespace, shards=place.shards)
        settings = Settings(block_ms=1_000, claim_ms=place.claim_ms)
        await Coordinator(store, settings=settings).run()

    await _patiently(start)


async def _patiently(start: Callable[[], Awaitable[None]]) -> None:
    """A supervisor would start a process again that could not connect."""
    while True:
        try:
            await start()
            return  # noqa: TRY300 - the loop's way out
        except Exception:
            logging.getLogger("chaos").exception("the process could not start; again")
            await asyncio.sleep(0.2)
