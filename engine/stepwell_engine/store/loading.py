"""Which scripts a server was sent, and in which form it takes them: as functions, or where it has none as scripts."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from stepwell.errors import ServerAuthError
from stepwell_engine.store.errors_map import RETRYABLE
from stepwell_engine.store.scripts import PREFIX, Script
from stepwell_engine.store.wire import Arg, Wire

VERSIONS: Final = 4
"""Of one script; with more, those that are not this process' own are deleted. Whoever still calls one loads it again."""

_REFUSED: Final[tuple[type[Exception], ...]] = (ServerAuthError, *RETRYABLE)


class Loaded:
    """The scripts of one server, over all connections to it."""

    def __init__(self) -> None:
        self._scripts: dict[str, Script] = {}
        self._functions = True

    def run(self, wire: Wire, script: Script, argv: Sequence[Arg]) -> asyncio.Future[Any]:
        """Call it, and load it right before if this server may not have it. `argv`: the number of keys, keys and arguments."""
        if script.sha not in self._scripts:
            self._scripts[script.sha] = script
            wire.call(*self._loading(script)).add_done_callback(noted)
        return wire.call(*self.calling(script), *argv)

    def calling(self, script: Script) -> tuple[Arg, Arg]:
        """What goes before `argv`: FCALL or EVALSHA."""
        return ("FCALL", script.function) if self._functions else ("EVALSHA", script.sha)

    def forget(self, script: Script) -> None:
        """The server lost it (FUNCTION FLUSH, SCRIPT FLUSH): the next `run` loads it again."""
        self._scripts.pop(script.sha, None)

    async def load(self, wire: Wire, script: Script) -> None:
        """Load it and see the error: it doesn't compile, or SCRIPT LOAD is forbidden. If FUNCTION LOAD is, scripts are used from now on."""
        try:
            await wire.call(*self._loading(script))
        except _REFUSED:
            if not self._functions:
                raise
            # What passes (out of memory, a full disk) too: SCRIPT LOAD is no write, so the call itself will be told.
            self._functions = False
            await wire.call(*self._loading(script))
        except ResponseError as error:
            if "already exists" not in str(error):
                raise

    async def prepare(self, wire: Wire) -> None:
        """On a new connection: which form the server takes, and all scripts again, since it may have been restarted."""
        # Servers before 7 have no functions, a user may not be allowed to call them, and a replica takes no FUNCTION LOAD.
        probe, role = wire.call("FCALL", PREFIX, 0), wire.call("ROLE")
        await asyncio.gather(probe, role, return_exceptions=True)
        master = role.exception() is not None or role.result()[0] == b"master"
        self._functions = master and isinstance(probe.exception(), NoScriptError)
        loads = [wire.call(*self._loading(script)) for script in self._scripts.values()]
        await asyncio.gather(*loads, return_exceptions=True)

    async def tidy(self, wire: Wire, own: Collection[str]) -> None:
        """Delete functions that versions before this one left; `own` are this version's. Raises ServerError."""
        try:
            found = await wire.call("FUNCTION", "LIST", "LIBRARYNAME", f"{PREFIX}_*")
        except (ResponseError, ServerAuthError):
            return
        versions: defaultdict[str, list[str]] = defaultdict(list)
        for row in found:
            name = dict(zip(row[::2], row[1::2], strict=True))[b"library_name"].decode()
            versions[name.rpartition("_")[0]].append(name)
        crowded = [names for names in versions.values() if len(names) > VERSIONS]
        old = [name for names in crowded for name in names if name not in own]
        await asyncio.gather(
            *(wire.call("FUNCTION", "DELETE", name) for name in old), return_exceptions=True
        )

    def _loading(self, script: Script) -> tuple[Arg, ...]:
        if self._functions:
            return "FUNCTION", "LOAD", script.library
        return "SCRIPT", "LOAD", script.source


def noted(future: asyncio.Future[Any]) -> None:
    """Take its error for seen: a failed load shows as NOSCRIPT, and a lost connection in the call behind it."""
    if not future.cancelled():
        future.exception()
