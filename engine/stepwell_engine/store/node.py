"""One server as the store sees it: a shared Wire that reconnects, and parked Wires that block."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import uniform
from typing import Any, Final

from redis.exceptions import ResponseError

from stepwell.errors import ServerAuthError, ServerUnavailableError
from stepwell_engine.store.errors_map import AGAIN, RETRYABLE, final, unavailable
from stepwell_engine.store.loading import Loaded, noted
from stepwell_engine.store.url import Endpoint
from stepwell_engine.store.wire import Arg, Counters, Wire

FIRST_BACKOFF: Final = 0.02
MAX_BACKOFF: Final = 1.0
"""Seconds between tries, doubled from the first to the last, each shortened by up to a half."""

_CALM: Final = 10.0  # seconds without trouble after which backoff begins at FIRST_BACKOFF again
_MAX_IDLE: Final = 4  # parked Wires kept for each label

Resolve = Callable[[], Awaitable[Endpoint]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How connections are made; times in seconds."""

    name: str = "stepwell"
    connect_timeout: float = 5.0
    reply_timeout: float = 30.0


class Node:
    """One server, found anew by `resolve` at each connect (a Sentinel's master moves).

    `wire` is set while the gate is open. Trouble closes it; those who then wait in `ready` get the
    Wire in the order they came, before the gate opens for newcomers: what was sent before the
    trouble is sent again before anything new.
    """

    def __init__(
        self,
        resolve: Resolve,
        known: Endpoint,
        settings: Settings,
        counters: Counters,
        blocking_counters: Counters,
    ) -> None:
        self.endpoint = known
        self.wire: Wire | None = None  # may have closed since
        self.scripts = Loaded()
        self._resolve = resolve
        self._settings = settings
        self._counters = counters
        self._blocking_counters = blocking_counters
        self._live: Wire | None = None
        self._opener: asyncio.Task[None] | None = None
        self._tried = False
        self._waiters: deque[asyncio.Future[Wire]] = deque()
        self._failures = 0
        self._last_failure = 0.0
        self._idle: dict[str, list[Wire]] = {}
        self._standing: tuple[Wire, asyncio.Future[Any]] | None = None
        self._unstood = False
        self._parked: set[Wire] = set()
        self._closed = False

    async def ready(self) -> Wire:
        """The shared Wire; connects first if need be: one try, after any backoff in progress.

        What is called on it before the next await keeps its place in the order.
        Raises ServerUnavailableError, ServerAuthError.
        """
        if self._closed:
            raise unavailable(self.endpoint, "this process has closed it")
        wire = self.wire
        if wire is not None and not wire.closed:
            return wire
        future: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        if self._opener is None:
            self._opener = asyncio.create_task(self._open(self._delay() if self._tried else 0.0))
        return await future

    def hold(self) -> None:
        """Closes the gate for a backoff, shared by all that have trouble meanwhile."""
        if self._opener is None and not self._closed:
            self.wire = None
            self._opener = asyncio.create_task(self._open(self._delay()))

    def calm(self) -> None:
        """A retry succeeded: the next backoff is short again."""
        self._failures = 0

    async def take(self, label: str) -> Wire:
        """A connection for one blocking command, idle or new; `give` it back or `drop` it."""
        await self.ready()  # also finds out where the master is now
        idle = self._idle.get(label, [])
        while idle:
            wire = idle.pop()
            if not wire.closed and wire.endpoint == self.endpoint:
                return wire
            self.drop(wire)
        try:
            wire = await Wire.connect(
                self.endpoint,
                name=f"{self._settings.name}:{label}" if label else self._settings.name,
                timeout=self._settings.connect_timeout,
                reply_timeout=None,
                counters=self._blocking_counters,
            )
        except ServerUnavailableError:
            # Callers loop; the gate stays open for the others (it may be maxclients).
            await asyncio.sleep(self._delay())
            raise
        self._parked.add(wire)
        return wire

    def give(self, label: str, wire: Wire) -> None:
        idle = self._idle.setdefault(label, [])
        if wire.closed or self._closed or len(idle) >= _MAX_IDLE:
            self.drop(wire)
        else:
            idle.append(wire)

    def drop(self, wire: Wire) -> None:
        wire.abort("the blocking call was given up")
        self._parked.discard(wire)

    async def stand(
        self,
        block: Sequence[Arg],
        then: Sequence[Arg],
        *,
        timeout: float,  # noqa: ASYNC109 - the blocking command's own, and slack
        label: str,
    ) -> tuple[Any, Any]:
        """A blocking command with another right behind it, which the server runs in the very moment the first returns.

        Both replies; an error of `then` is None. One at a time: `unstand` ends it. Raises ServerError, ResponseError of `block`.
        """
        self._unstood = False
        wire = await self.take(label)
        if self._unstood:  # while it connected
            self.give(label, wire)
            raise unavailable(self.endpoint, "withdrawn")
        ident, first, second = wire.call("CLIENT", "ID"), wire.call(*block), wire.call(*then)
        ident.add_done_callback(noted)
        self._standing = wire, ident
        loop = asyncio.get_running_loop()
        timers = [
            loop.call_later(self._settings.connect_timeout, _give_up, wire, ident),
            loop.call_later(timeout, _give_up, wire, second),
        ]
        try:
            try:
                found = await second  # and `first`: replies come in order
            except Exception:  # noqa: BLE001 - its own, or of the connection: then `first` has it too
                found = None
            if first.exception() is not None and not found:
                await first
        except BaseException as error:
            self.drop(wire)
            for dropped in (first, second):
                noted(dropped)
            if isinstance(error, RETRYABLE):
                self.hold()
                raise final(self.endpoint, error) from error
            raise
        finally:
            self._standing = None
            for timer in timers:
                timer.cancel()
        self.give(label, wire)
        return (None if first.exception() else first.result()), found

    async def unstand(self) -> None:
        """End `stand` now: it returns what its second command brought, or that command never is run. Raises ServerError."""
        self._unstood = True
        if self._standing is None:
            return
        wire, ident = self._standing
        shared = await self.ready()
        killed = 0
        if shared.endpoint == wire.endpoint and not wire.closed:
            try:
                killed = await shared.call("CLIENT", "KILL", "ID", await asyncio.shield(ident))
            except (ResponseError, ServerAuthError):
                pass  # an ACL: a connection that is closed from here may leave in the very moment of the reply
        if not killed:
            wire.abort("withdrawn")

    async def aclose(self) -> None:
        self._closed = True
        if self._opener is not None:
            self._opener.cancel()
            await asyncio.gather(self._opener, return_exceptions=True)
        self._refuse(unavailable(self.endpoint, "this process has closed it"))
        wires = [w for w in (self._live, *self._parked) if w is not None]
        self._parked.clear()
        self._idle.clear()
        await asyncio.gather(*(wire.aclose() for wire in wires))

    async def _open(self, delay: float) -> None:
        self._tried = True
        try:
            if delay:
                await asyncio.sleep(delay)
            if self._live is None or self._live.closed:
                self._live = await self._connect()
            wire = self._live
        except Exception as error:  # noqa: BLE001 - each waiter raises it
            self._opener = None  # the next `ready` tries again, after a backoff
            self._refuse(error)
            return
        self._admit(wire)
        # After the waiters' tasks, which were woken just now: newcomers go behind them.
        asyncio.get_running_loop().call_soon(self._publish, wire)

    async def _connect(self) -> Wire:
        self.endpoint = await self._resolve()
        wire = await Wire.connect(
            self.endpoint,
            name=self._settings.name,
            timeout=self._settings.connect_timeout,
            reply_timeout=self._settings.reply_timeout,
            counters=self._counters,
        )
        # A restarted server has no scripts. Loading them before anyone is let in keeps the order
        # of what is resent, and a server that is still LOADING its data is found out here.
        ping = wire.call("PING")
        try:
            await asyncio.gather(ping, self.scripts.prepare(wire), return_exceptions=True)
            await ping
        except Exception as error:
            wire.abort("it refused PING")
            raise final(self.endpoint, error) from error
        except BaseException:
            # Closed in this very moment: nobody else knows of this connection yet.
            wire.abort("this process has closed it")
            raise
        return wire

    def _publish(self, wire: Wire) -> None:
        self._opener = None
        self.wire = wire
        if not wire.closed:
            self._admit(wire)
        elif self._waiters:
            self.hold()

    def _admit(self, wire: Wire) -> None:
        waiters, self._waiters = self._waiters, deque()
        for future in waiters:
            if not future.done():
                future.set_result(wire)

    def _refuse(self, error: Exception) -> None:
        waiters, self._waiters = self._waiters, deque()
        for future in waiters:
            if not future.done():
                future.set_exception(error)

    def _delay(self) -> float:
        now = asyncio.get_running_loop().time()
        if now - self._last_failure > _CALM:
            self._failures = 0
        delay = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(self._failures, 10))
        self._failures += 1
        self._last_failure = now
        return uniform(delay / 2, delay)


def _give_up(wire: Wire, call: asyncio.Future[Any], turns: int = 3) -> None:
    """Drop a connection that owes a reply. A loop that was blocked meanwhile reads first what has come."""
    if call.done():
        return
    if turns:
        asyncio.get_running_loop().call_soon(_give_up, wire, call, turns - 1)
    else:
        wire.abort("a blocking call got no reply")


def ask(wire: Wire) -> None:
    """Says ASKING: the next command on it may be about a slot that is still on its way to this server."""
    wire.call("ASKING").add_done_callback(noted)


def fixed(endpoint: Endpoint) -> Resolve:
    """Always the same server."""

    async def resolve() -> Endpoint:
        return endpoint

    return resolve


def through_sentinels(
    sentinels: tuple[Endpoint, ...], service: str, master: Endpoint, settings: Settings
) -> Resolve:
    """The master that a Sentinel names and that agrees it is one."""
    order = list(sentinels)

    async def resolve() -> Endpoint:
        said: list[str] = []
        for sentinel in list(order):
            try:
                found = await _ask(sentinel, service, settings)
                if found is None:
                    said.append(f"{sentinel} knows no master of {service!r}")
                    continue
                at = master.at(*found)
                await _must_be_master(at, settings)
            except AGAIN as error:
                said.append(str(error))
                continue
            # Ask first next time the one that knew.
            order.remove(sentinel)
            order.insert(0, sentinel)
            return at
        raise unavailable(f"service {service!r}", "; ".join(said))

    return resolve


async def _ask(sentinel: Endpoint, service: str, settings: Settings) -> tuple[str, int] | None:
    wire = await _brief(sentinel, settings)
    try:
        found = await wire.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
    finally:
        await wire.aclose()
    return None if found is None else (found[0].decode(), int(found[1]))


async def _must_be_master(at: Endpoint, settings: Settings) -> None:
    # A Sentinel that was cut off still names the old master, which may be a replica by now.
    wire = await _brief(at, settings)
    try:
        role = await wire.call("ROLE")
    finally:
        await wire.aclose()
    if role[0] != b"master":
        raise unavailable(at, "the Sentinel calls it master, itself it says replica: a failover")


async def _brief(at: Endpoint, settings: Settings) -> Wire:
    timeout = min(settings.connect_timeout, 2.0)
    return await Wire.connect(at, name=settings.name, timeout=timeout, reply_timeout=timeout)
