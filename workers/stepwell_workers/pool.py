"""`--processes N`: keeps N worker processes running and brings them down together."""

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from random import uniform
from typing import Final

from stepwell_workers.child import Child, describe
from stepwell_workers.signals import Shutdown

FIRST_PAUSE: Final = 0.5
MAX_PAUSE: Final = 30.0
"""Seconds before a process that died is started again, doubled at each death in a row."""

HEALTHY: Final = 60.0
"""Seconds a process must have lived for its death to count as the first in a row."""

CONFIG_EXIT: Final = 2
"""The exit code of a process that can't start as it is told to; starting it again can't help."""


class Pool:
    """N copies of one command, each started again when it ends without being told to.

    The first SIGTERM or SIGINT goes to all as SIGTERM (drain), and so does the second (release
    now); `kill_after` seconds after the first, what still runs is killed (None = never). A process
    that ends with `CONFIG_EXIT` ends the pool.

        code = await Pool([sys.executable, "-m", "stepwell.cli", "worker", "app:client"], 4).run()
    """

    def __init__(
        self,
        command: Sequence[str],
        processes: int,
        *,
        kill_after: float | None = None,
        first_pause: float = FIRST_PAUSE,
        env: Mapping[str, str] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        if processes < 1:
            raise ValueError(f"processes={processes} must be 1 or more")
        self._command = command
        self._processes = processes
        self._kill_after = kill_after
        self._first_pause = first_pause
        self._env = env
        self._logger = logger or logging.getLogger("stepwell.pool")
        self._children: dict[int, Child] = {}
        self._codes: list[int] = []

    async def run(self, shutdown: Shutdown | None = None) -> int:
        """Until told to stop and all have ended; the pool's exit code.

        0 if every process ended with 0 or by the SIGTERM it was sent, else the first other code
        (128 + signal for one that was killed). Takes the process's signals unless given `shutdown`.
        """
        if shutdown is None:
            with Shutdown(logger=self._logger) as own:
                return await self.run(own)
        async with asyncio.TaskGroup() as group:
            stop = group.create_task(self._stop(shutdown))
            slots = [group.create_task(self._slot(i, shutdown)) for i in range(self._processes)]
            await asyncio.wait(slots)
            stop.cancel()
        bad = [code for code in self._codes if code not in (0, -signal.SIGTERM)]
        return 0 if not bad else bad[0] if bad[0] > 0 else 128 - bad[0]

    async def _slot(self, index: int, shutdown: Shutdown) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while not shutdown.drain.is_set():
            begun = loop.time()
            code = await self._one(index, shutdown)
            if shutdown.drain.is_set():
                self._codes.append(code)
                return
            if code == CONFIG_EXIT:
                self._codes.append(code)
                shutdown.request(f"worker process {index} can't start")
                return
            deaths = 0 if loop.time() - begun > HEALTHY else deaths + 1
            pause = min(MAX_PAUSE, self._first_pause * 2 ** min(max(0, deaths - 1), 10))
            pause *= uniform(0.5, 1.0)
            self._logger.warning(
                "worker process %d ended by %s; starting it again in %.1f s",
                index,
                describe(code),
                pause,
            )
            try:
                async with asyncio.timeout(pause):
                    await shutdown.drain.wait()
            except TimeoutError:
                pass

    async def _one(self, index: int, shutdown: Shutdown) -> int:
        try:
            child = await Child.start(self._command, index=index, env=self._env)
        except OSError as error:  # no memory, no process: it may pass, as a death may
            self._logger.warning("worker process %d: %s", index, error)
            return 1
        self._children[index] = child
        if shutdown.drain.is_set():
            child.send(signal.SIGTERM)  # _stop has sent its own before this one was born
        try:
            return await child.ended()
        except asyncio.CancelledError:
            child.send(signal.SIGKILL)
            await child.ended()
            raise
        finally:
            del self._children[index]

    async def _stop(self, shutdown: Shutdown) -> None:
        await shutdown.drain.wait()
        self._send(signal.SIGTERM)
        released = asyncio.create_task(self._release(shutdown))
        try:
            if self._kill_after is not None:
                await asyncio.sleep(self._kill_after)
                self._logger.warning("killing what still runs after %g s", self._kill_after)
                self._send(signal.SIGKILL)
            await released
        finally:
            released.cancel()

    async def _release(self, shutdown: Shutdown) -> None:
        await shutdown.release.wait()
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for child in self._children.values():
            child.send(number)
