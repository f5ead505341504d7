"""The functions of a namespace: published by workers on shard 0, read by coordinators when a version changes."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from stepwell.ids import function_shard
from stepwell.serde.values import pack, unpack
from stepwell_engine import luapack
from stepwell_engine.limits.cancel import MAX_SPAN_MS
from stepwell_engine.limits.publish import publish_gates
from stepwell_engine.store.store import Store
from stepwell_engine.triggers import RegisteredFunction, Route, TriggerIndex

__all__ = ["RegisteredFunction", "Registry", "register"]

_PAGE: Final = 500
_ERRORS: Final = (ValueError, TypeError, KeyError, AttributeError, IndexError)

logger = logging.getLogger("stepwell.coordinator")


class Registry:
    """All functions as last read. `refresh` reads them again when the version key says so.

    `lookback`: event name → the shards whose waits or new runs may ask for recent events of that name. `cancels`: those that a `Cancel`
    names → how long, in ms, after all entries before them are handled they may still be asked for.

        registry = Registry(store)
        await registry.refresh()
        registry.find("shop", "ship")

    A function that was removed stays for the runs that it had (`known`, `numbered`), without its triggers.
    """

    __slots__ = (
        "_by_id",
        "_by_number",
        "_index",
        "_store",
        "_version",
        "apps",
        "cancels",
        "lookback",
    )

    def __init__(self, store: Store) -> None:
        self._store = store
        self._version: bytes | None = b""  # no version reads so
        self._by_id: dict[tuple[str, str], RegisteredFunction] = {}
        self._by_number: dict[str, RegisteredFunction] = {}
        self._index = TriggerIndex(())
        self.lookback: dict[str, set[int]] = {}
        self.cancels: dict[str, int] = {}
        self.apps: tuple[str, ...] = ()

    @property
    def version(self) -> bytes | None:
        """The version as last read; None before that, and while there is none."""
        return self._version or None

    def find(self, app: str, fn: str) -> RegisteredFunction | None:
        """The function of that app and id, if it can be started."""
        function = self._by_id.get((app, fn))
        return None if function is None or function.removed else function

    def known(self, app: str, fn: str) -> RegisteredFunction | None:
        """The function of that app and id, also one that was removed."""
        return self._by_id.get((app, fn))

    def numbered(self, number: str) -> RegisteredFunction | None:
        """The function a run's hash names by its number."""
        return self._by_number.get(number)

    def names(self, number: str) -> tuple[str, str]:
        """App and id of the function of that number, for metrics; empty when it is not known."""
        function = self._by_number.get(number)
        return (function.app, function.fn) if function else ("", "")

    def all(self, *, removed: bool = False) -> list[RegisteredFunction]:
        """Every function; with `removed` also those that were removed, whose runs may go on."""
        return [f for f in self._by_id.values() if removed or not f.removed]

    def route(self, name: str) -> Route:
        """Who wants events of that name."""
        return self._index.route(name)

    def ask(self) -> "asyncio.Future[Any]":
        """Send the question for the version, to be given to `refresh`: it shares the caller's round trip."""
        keys = self._store.keys(0)
        return self._store.server.call(keys.root, "GET", keys.build("functions_version"))

    async def refresh(self, version: "asyncio.Future[Any] | None" = None) -> bool:
        """Read the functions again if the version changed; whether it did. Raises ServerUnavailableError."""
        now: bytes | None = await (version or self.ask())
        if now == self._version:
            return False
        keys = self._store.keys(0)
        flat: list[bytes] = await self._store.server.call(
            keys.root, "HGETALL", keys.build("functions")
        )
        shards = len(self._store.shards)
        found = [_parse(f, v, shards) for f, v in zip(flat[::2], flat[1::2], strict=True)]
        functions = [function for function in found if function is not None]
        # Before anything is planned by them: a gate must be known to whoever leases.
        await publish_gates(self._store, functions, int(now or 0))
        self._take(functions)
        # Taken before the functions were read, so a change in between is seen next time.
        self._version = now
        return True

    def _take(self, functions: Sequence[RegisteredFunction]) -> None:
        self._by_id = {(f.app, f.fn): f for f in functions}
        self._by_number = {f.number: f for f in functions}
        self._index = TriggerIndex(functions)
        self.lookback = {}
        self.cancels = {}
        for function in functions:
            for name in function.lookback | function.cancelling:
                self.lookback.setdefault(name, set()).add(function.shard)
            if function.flow and (cancels := function.flow.cancels):
                for name in cancels.names:
                    self.cancels[name] = max(self.cancels.get(name, 0), cancels.span_ms)
        for name in self.cancels.keys() & {n for f in functions for n in f.lookback}:
            self.cancels[name] = MAX_SPAN_MS
        self.apps = tuple(sorted({f.app for f in functions}))


def _parse(field: bytes, value: bytes, shards: int) -> RegisteredFunction | None:
    try:
        app, _, fn = field.decode().partition("\0")
        number, _started, config, *removed = luapack.read(value)
        found: dict[str, Any] = unpack(config)
        if removed:
            found["triggers"] = []
        function = RegisteredFunction(
            app, fn, str(int(number)), function_shard(app, fn, shards), found, bool(removed)
        )
        _ = function.triggers, function.max_crashes, function.lookback
    except _ERRORS as error:
        # One function that a newer version published must not keep the others from being served.
        logger.error(
            "function %r can't be read from the registry and is left out: %s", field, error
        )
        return None
    return function


async def register(
    store: Store, functions: Iterable[tuple[str, str, Mapping[str, Any]]], started_ms: int
) -> dict[tuple[str, str], str]:
    """Publish (app, fn, config) of a worker's functions; returns each one's number.

    `started_ms` is the worker's start: the latest start wins, so an old process never overwrites a newer one. Raises ServerError.

        numbers = await register(store, [("shop", "ship", config)], clock.now_ms())
    """
    fields = [(f"{app}\0{fn}", pack(dict(config), where="config")) for app, fn, config in functions]
    numbers: dict[tuple[str, str], str] = {}
    for start in range(0, len(fields), _PAGE):
        _, rows = await store.home.register(started_ms, fields[start : start + _PAGE])
        for field, number, _ in rows:
            app, _, fn = field.partition("\0")
            numbers[app, fn] = number
    return numbers
