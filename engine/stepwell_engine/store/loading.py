"""Which scripts a server was sent, and in which form it takes them: as functions, or where it has none as scripts."""

import asyncio
import re
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

FULL_S: Final = 60.0
"""How long a server that had no room for functions gets scripts."""

_OURS: Final = re.compile(rf"({PREFIX}_\w+)_[0-9a-f]{{12}}")


class Loaded:
    """The scripts of one server, over all connections to it."""

    def __init__(self) -> None:
        self._sent: dict[bool, dict[str, Script]] = {True: {}, False: {}}
        self._able = True
        self._full_until = 0.0

    @property
    def functions(self) -> bool:
        """Whether it is called by FCALL just now, not by EVALSHA."""
        if self._full_until:
            if asyncio.get_running_loop().time() < self._full_until:
                return False
            self._full_until = 0.0
        return self._able

    def run(self, wire: Wire, script: Script, argv: Sequence[Arg]) -> asyncio.Future[Any]:
        """Call it, and load it right before if this server may not have it. `argv`: the number of keys, keys and arguments."""
        functions = self.functions
        sent = self._sent[functions]
        if script.sha not in sent:
            sent[script.sha] = script
            load = wire.call(*_loading(script, functions))
            load.add_done_callback(self._noted if functions else noted)
        return wire.call(*_calling(script, functions), *argv)

    def calling(self, script: Script) -> tuple[Arg, Arg]:
        """What goes before `argv`: FCALL or EVALSHA."""
        return _calling(script, self.functions)

    def forget(self, script: Script) -> None:
        """The server lost it (FUNCTION FLUSH, SCRIPT FLUSH): the next `run` loads it again."""
        for sent in self._sent.values():
            sent.pop(script.sha, None)

    def full(self) -> None:
        """It has no room for a function. A script may still write what needs none: it is refused by what it does, a function whole."""
        self._full_until = asyncio.get_running_loop().time() + FULL_S

    async def load(self, wire: Wire, script: Script) -> None:
        """Load it and see the error: it doesn't compile, or SCRIPT LOAD is forbidden. If FUNCTION LOAD is, the next `run` uses scripts."""
        functions = self.functions
        try:
            await wire.call(*_loading(script, functions))
        except (ResponseError, ServerAuthError) as error:
            if not (functions and self._refused(error)) and "already exists" not in str(error):
                raise

    async def prepare(self, wire: Wire) -> None:
        """On a new connection: which form the server takes, and all scripts again, since it may have been restarted."""
        # Servers before 7 have no functions, a user may not be allowed to call them, and a replica takes no FUNCTION LOAD.
        probe, hello = wire.call("FCALL", PREFIX, 0), wire.call("HELLO")
        await asyncio.gather(probe, hello, return_exceptions=True)
        replica = hello.exception() is None and b"replica" in hello.result()
        self._able = isinstance(probe.exception(), NoScriptError) and not replica
        self._full_until = 0.0
        known = self._sent[True] | self._sent[False]
        for functions in (True, False):
            self._sent[functions] = {}
            if functions == self.functions:
                self._sent[functions] = dict(known)
                loads = [wire.call(*_loading(script, functions)) for script in known.values()]
                await asyncio.gather(*loads, return_exceptions=True)
                # Refused, they are loaded as scripts in the next round: before anyone is let in, as that keeps the order.
                for load in loads if functions else ():
                    self._noted(load)

    async def tidy(self, wire: Wire, own: Collection[str]) -> None:
        """Delete functions that versions before this one left; `own` are this version's. Raises ServerError."""
        try:
            found = await wire.call("FUNCTION", "LIST", "LIBRARYNAME", f"{PREFIX}_*")
        except (ResponseError, ServerAuthError):
            return
        versions: defaultdict[str, list[str]] = defaultdict(list)
        for row in found:
            name = dict(zip(row[::2], row[1::2], strict=True))[b"library_name"].decode()
            if ours := _OURS.fullmatch(name):
                versions[ours[1]].append(name)
        crowded = [names for names in versions.values() if len(names) > VERSIONS]
        old = [name for names in crowded for name in names if name not in own]
        await asyncio.gather(
            *(wire.call("FUNCTION", "DELETE", name) for name in old), return_exceptions=True
        )

    def _noted(self, load: asyncio.Future[Any]) -> None:
        """See a load's end: the call behind it, and those in flight, find the script missing, and come again."""
        if not load.cancelled() and (error := load.exception()) is not None:
            self._refused(error)

    def _refused(self, error: BaseException) -> bool:
        """Whether it is a user who may not, or a server that can't just now: from here on scripts are used."""
        if isinstance(error, ServerAuthError):
            self._able = False
        elif isinstance(error, RETRYABLE):
            self.full()
        else:
            return False
        self._sent[True].clear()
        return True


def noted(future: asyncio.Future[Any]) -> None:
    """Take its error for seen: a failed load shows as NOSCRIPT, and a lost connection in the call behind it."""
    if not future.cancelled():
        future.exception()


def _calling(script: Script, functions: bool) -> tuple[Arg, Arg]:
    return ("FCALL", script.function) if functions else ("EVALSHA", script.sha)


def _loading(script: Script, functions: bool) -> tuple[Arg, ...]:
    if functions:
        return "FUNCTION", "LOAD", script.library
    return "SCRIPT", "LOAD", script.source
