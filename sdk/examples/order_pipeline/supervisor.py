"""The demo's processes: a real server, a coordinator and a worker, started again whenever one dies."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store
from stepwell_workers.child import Child, describe

_LOOK = 0.1
_COMMANDS = {
    "coordinator": ["coordinator"],
    "worker": ["worker", "examples.order_pipeline.app:client", "--drain", "3s"],
}


class Supervisor:
    """Keeps the three running while it is entered; `say` is told of starts and deaths.

    The server writes its log before it answers, so that killing it loses nothing that was accepted.

        async with Supervisor(Path(".stepwell/demo"), print) as processes:
            print(processes.url)
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder.resolve()
        self._say = say
        self._tasks: list[asyncio.Task[None]] = []
        self._children: dict[str, Child] = {}
        self._server: EmbeddedServer
        self.deaths = 0

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._server.url

    @property
    def pids(self) -> dict[str, int]:
        """What to kill."""
        found = {name: child.pid for name, child in self._children.items()}
        return {"server": self._server.pid, **found} if self._server.running else found

    async def __aenter__(self) -> Self:
        self._server = await asyncio.to_thread(
            EmbeddedServer,
            directory=self._folder / "server",
            appendonly=True,
            appendfsync="always",
        )
        started = [asyncio.Event() for _ in _COMMANDS]
        for name, event in zip(_COMMANDS, started, strict=True):
            self._tasks.append(asyncio.create_task(self._keep(name, event)))
        self._tasks.append(asyncio.create_task(self._keep_server()))
        for event in started:
            await event.wait()
        await self._registered()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for child in self._children.values():
            child.send(signal.SIGTERM)
        await asyncio.gather(*(child.ended() for child in self._children.values()))
        await asyncio.to_thread(self._server.stop)

    async def _registered(self) -> None:
        """An event starts the functions known when it is handled: the worker has to be there first."""
        store = await Store.open(self.url)
        registry = Registry(store)
        while not registry.all():
            await registry.refresh()
            await asyncio.sleep(_LOOK)
        await store.aclose()

    async def _keep(self, name: str, started: asyncio.Event) -> None:
        environment = {**os.environ, "STEPWELL_REDIS_URL": self.url}
        log = str(self._folder / f"{name}.log")
        command = ["/bin/sh", "-c", 'exec "$@" 2>>"$0"', log]
        command += [sys.executable, "-m", "stepwell.cli", *_COMMANDS[name]]
        while True:
            child = await Child.start(command, env=environment)
            self._children[name] = child
            self._say(f"{name} started, pid {child.pid}")
            started.set()
            code = await child.ended()
            self.deaths += 1
            self._say(f"{name} ended by {describe(code)}")
            await asyncio.sleep(_LOOK)

    async def _keep_server(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            if not self._server.running:
                self.deaths += 1
                self._say("server ended")
                await asyncio.to_thread(self._server.restart)
                self._say(f"server started, pid {self._server.pid}")
