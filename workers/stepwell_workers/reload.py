"""Development reload: starts the worker process again when a .py file of the app changes."""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from stepwell_workers.child import Child, describe
from stepwell_workers.signals import Shutdown

SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env"})
"""Folders that are not looked into, beside those whose name begins with a dot."""

MAX_FILES: Final = 20_000
"""Files looked at in one scan; the rest of a larger tree isn't watched."""

_SETTLE: Final = 0.05  # editors and version control write several files one after the other

Stamps = dict[Path, tuple[int, int]]


class Changes(NamedTuple):
    """What differs between two scans."""

    changed: list[Path]
    added: list[Path]
    removed: list[Path]

    def __str__(self) -> str:
        parts: list[str] = []
        for word, paths in zip(("changed", "added", "removed"), self, strict=True):
            if paths:
                more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
                parts.append(f"{', '.join(_short(p) for p in paths[:3])}{more} {word}")
        return "; ".join(parts)


def scan(folders: Sequence[Path]) -> Stamps:
    """Modification time (ns) and size of every .py file below `folders`."""
    stamps: Stamps = {}
    waiting = [str(folder) for folder in folders]
    while waiting and len(stamps) < MAX_FILES:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    _look(entry, stamps, waiting)
        except OSError:
            continue  # gone since, or not ours to read
    return stamps


def _look(entry: os.DirEntry[str], stamps: Stamps, waiting: list[str]) -> None:
    try:
        # Links to folders aren't followed: they may lead in a circle.
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in SKIPPED and not entry.name.startswith("."):
                waiting.append(entry.path)
        elif entry.name.endswith(".py"):
            stat = entry.stat()
            stamps[Path(entry.path)] = (stat.st_mtime_ns, stat.st_size)
    except OSError:
        pass  # removed while we looked


def diff(before: Stamps, after: Stamps) -> Changes | None:
    """What changed from one scan to the next; None if nothing did."""
    found = Changes(
        sorted(p for p, stamp in after.items() if p in before and before[p] != stamp),
        sorted(after.keys() - before.keys()),
        sorted(before.keys() - after.keys()),
    )
    return found if any(found) else None


class Reloader:
    """Runs `command`, and anew after each change below `folders`.

    A child that ends by itself (an error in the user's code) is started again at the next change
    only. It gets SIGTERM, and SIGKILL `grace` seconds later. Looks every `interval` seconds.

        await Reloader(["stepwell", "worker", "app:client"], [source_folder("app:client")]).run()
    """

    def __init__(
        self,
        command: Sequence[str],
        folders: Sequence[Path],
        *,
        interval: float = 0.5,
        grace: float = 5.0,
        env: Mapping[str, str] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._command = command
        self._folders = folders
        self._interval = interval
        self._grace = grace
        self._env = env
        self._logger = logger or logging.getLogger("stepwell.reload")

    async def run(self, shutdown: Shutdown | None = None) -> None:
        """Until told to stop. Takes the process's signals unless given `shutdown`."""
        if shutdown is None:
            with Shutdown(logger=self._logger) as own:
                return await self.run(own)
        stamps = await self._scan()
        while not shutdown.drain.is_set():
            # Stamps are older than the child's start, so no change falls between the two.
            child = await Child.start(self._command, env=self._env)
            stamps = await self._until_changed(child, stamps, shutdown)
        return None

    async def _until_changed(self, child: Child, before: Stamps, shutdown: Shutdown) -> Stamps:
        """Watch over one child and end it; the stamps that its successor starts from."""
        ended = asyncio.create_task(child.ended())
        noticed = asyncio.create_task(self._notice(ended, shutdown))
        stopped = asyncio.create_task(shutdown.drain.wait())
        change = asyncio.create_task(self._change(before))
        try:
            await asyncio.wait({stopped, change}, return_when=asyncio.FIRST_COMPLETED)
            if shutdown.drain.is_set():
                await self._end(child, ended, shutdown)
                return before
            after, changes = await change
            self._logger.info("%s: reloading", changes)
            noticed.cancel()
            await self._end(child, ended, shutdown)
            return after
        finally:
            if not ended.done():
                child.send(signal.SIGKILL)
                await asyncio.shield(ended)
            for task in (noticed, stopped, change):
                task.cancel()

    async def _notice(self, ended: asyncio.Task[int], shutdown: Shutdown) -> None:
        code = await asyncio.shield(ended)
        if not shutdown.drain.is_set():
            self._logger.warning("the worker ended by %s; waiting for a change", describe(code))

    async def _change(self, before: Stamps) -> tuple[Stamps, Changes]:
        while True:
            await asyncio.sleep(self._interval)
            after = await self._scan()
            if diff(before, after) is None:
                continue
            while True:  # until two looks agree
                await asyncio.sleep(_SETTLE)
                again = await self._scan()
                if diff(after, again) is None:
                    break
                after = again
            if (changes := diff(before, after)) is not None:
                return after, changes

    async def _end(self, child: Child, ended: asyncio.Task[int], shutdown: Shutdown) -> None:
        child.send(signal.SIGTERM)
        release = asyncio.create_task(shutdown.release.wait())
        try:
            await asyncio.wait(
                {ended, release}, timeout=self._grace, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            release.cancel()
        if not ended.done():
            child.send(signal.SIGKILL)
            await ended

    async def _scan(self) -> Stamps:
        return await asyncio.to_thread(scan, self._folders)


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
