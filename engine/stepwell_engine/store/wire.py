"""One pipelined connection to one server: an asyncio protocol over hiredis, replies as bytes.

All commands of one turn of the event loop leave in one write, which counts as one round trip.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import hiredis
from redis.exceptions import ReadOnlyError, ResponseError

from stepwell_engine.store.errors_map import login_error, reply_error, unavailable
from stepwell_engine.store.url import Endpoint

Arg = str | bytes | float
"""What a command is made of. `bool` is not among it: write 1 or 0."""

HIGH_WATER: Final = 1 << 20
"""Bytes the transport may hold unsent; above, commands wait in the Wire's own list."""

MAX_UNSENT: Final = 256 << 20
"""Bytes of waiting commands above which `Wire.call` refuses: the server doesn't read."""

# Its stub names a tuple of one; it takes any number.
_pack = cast("Callable[[tuple[Arg, ...]], bytes]", cast("Any", hiredis).pack_command)


@dataclass(slots=True)
class Counters:
    """Running totals, shared by the Wires of one Server. A round trip is one write."""

    commands: int = 0
    round_trips: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    connects: int = 0


class Wire(asyncio.Protocol):
    """One connection. Belongs to the event loop that made it.

    Futures are answered in the order of the calls. A call that has left can't be taken back:
    cancelling its future only drops the reply.

        wire = await Wire.connect(endpoint, name="stepwell", timeout=5.0)
        one, two = await asyncio.gather(wire.call("GET", "a"), wire.call("GET", "b"))
    """

    __slots__ = (
        "_flushing",
        "_loop",
        "_lost",
        "_out",
        "_paused",
        "_pending",
        "_reader",
        "_received",
        "_reply_timeout",
        "_transport",
        "_unsent",
        "_watch",
        "_watched",
        "closed",
        "counters",
        "endpoint",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        reply_timeout: float | None = 30.0,
        counters: Counters | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.counters = counters or Counters()
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._lost = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        # Ellipsis never is a reply, False could be.
        self._reader = hiredis.Reader(
            replyError=partial(reply_error, endpoint), notEnoughData=Ellipsis
        )
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._unsent = 0
        self._flushing = False
        self._paused = False
        self._reply_timeout = reply_timeout
        self._watch: asyncio.TimerHandle | None = None
        self._received = 0
        self._watched = 0

    @classmethod
    async def connect(
        cls,
        endpoint: Endpoint,
        *,
        name: str,
        timeout: float,  # noqa: ASYNC109 - one limit for the dial and the login
        reply_timeout: float | None = 30.0,
        counters: Counters | None = None,
    ) -> "Wire":
        """Connects, logs in, selects the database and names the connection.

        `timeout` is for all of that, `reply_timeout` for silence while replies are owed (None =
        wait for ever: for blocking commands), both in seconds. Raises ServerUnavailableError,
        ServerAuthError.
        """
        wire = cls(endpoint, reply_timeout=reply_timeout, counters=counters)
        try:
            async with asyncio.timeout(timeout):
                await wire._dial()
                await wire._log_in(name)
        except TimeoutError as error:
            wire._abort()
            raise unavailable(endpoint, f"no answer within {timeout:g} s") from error
        except ssl.SSLCertVerificationError as error:
            wire._abort()
            advice = "name its CA in the URL with ?ssl_ca_certs=/path/to/ca.pem"
            raise unavailable(endpoint, f"{error}; {advice}") from error
        except OSError as error:
            wire._abort()
            raise unavailable(endpoint, str(error) or type(error).__name__) from error
        except BaseException:
            wire._abort()
            raise
        wire.counters.connects += 1
        return wire

    def call(self, *args: Arg) -> asyncio.Future[Any]:
        """Queues one command; it leaves at the end of this turn of the loop.

        The future gives the reply (bytes, int, list, None) or an error: redis.exceptions
        .ResponseError and its subclasses for an error reply, ServerUnavailableError when the
        connection is lost or more than MAX_UNSENT bytes wait to be sent.
        """
        future = self._loop.create_future()
        if self.closed:
            future.set_exception(unavailable(self.endpoint, "the connection is closed"))
            return future
        packed = _pack(args)
        if self._unsent + len(packed) > MAX_UNSENT:
            future.set_exception(
                unavailable(self.endpoint, f"it doesn't read; {self._unsent} bytes wait to be sent")
            )
            return future
        self._unsent += len(packed)
        self._out.append(packed)
        self._pending.append(future)
        if not self._flushing:
            self._flushing = True
            # Runs in the loop's next turn, after every task that is ready in this one has called.
            self._loop.call_soon(self._flush)
        return future

    def push(self) -> None:
        """Sends now what waits, unless replies are owed: for a call that somebody waits for and none will follow in this turn."""
        if len(self._pending) == len(self._out):
            self._flush()

    @property
    def pending(self) -> int:
        """How many replies are owed."""
        return len(self._pending)

    async def aclose(self) -> None:
        """Closes; replies still owed fail with ServerUnavailableError. Idempotent."""
        if self._transport is None:
            self.closed = True
            return
        self._fail("the connection was closed by this process")
        self._transport.close()
        # TLS says goodbye first, and a stuck peer must not keep us.
        try:
            async with asyncio.timeout(1.0):
                await asyncio.shield(self._lost)
        except TimeoutError:
            self._transport.abort()

    def abort(self, why: str) -> None:
        """Drops the connection at once; replies still owed fail with `why`."""
        self._fail(why)
        self._abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self.counters.bytes_in += len(data)
        self._received += len(data)
        reader, pending, demoted = self._reader, self._pending, False
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not Ellipsis:
                future = pending.popleft()
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(reply, Exception):
                    demoted = demoted or isinstance(reply, ReadOnlyError)
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
            if demoted:  # after a failover the master is elsewhere, under the same URL
                self.abort("it has become a read-only replica")
        except (hiredis.ProtocolError, IndexError) as error:
            # What follows can't be matched with calls any more.
            self.abort(f"it doesn't speak the Redis protocol ({error})")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost ({exc or 'closed by the server'})")
        if not self._lost.done():
            self._lost.set_result(None)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._out and not self._flushing:
            self._flush()

    # Ours.

    def _flush(self) -> None:
        self._flushing = False
        if self._paused or self.closed or not self._out:
            return
        out, self._out = self._out, []
        size, self._unsent = self._unsent, 0
        counters = self.counters
        counters.commands += len(out)
        counters.round_trips += 1
        counters.bytes_out += size
        assert self._transport is not None
        self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._watch is None and self._reply_timeout is not None:
            self._arm(self._reply_timeout)

    def _arm(self, reply_timeout: float) -> None:
        self._watched = self._received
        self._watch = self._loop.call_later(reply_timeout, self._check_silence, reply_timeout)

    def _check_silence(self, reply_timeout: float) -> None:
        # One timer per period, not per call: a silent peer is noticed within two periods.
        self._watch = None
        if not self._pending:
            return
        if self._received == self._watched:
            self.abort(f"no reply for {reply_timeout:g} s")
        else:
            self._arm(reply_timeout)

    def _fail(self, why: str) -> None:
        self.closed = True
        self._out.clear()
        self._unsent = 0
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        pending, self._pending = self._pending, deque()
        for future in pending:  # in order, so that callers that resend keep it
            if not future.done():
                future.set_exception(unavailable(self.endpoint, why))

    def _abort(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    async def _dial(self) -> None:
        at = self.endpoint
        if at.path:
            await self._loop.create_unix_connection(lambda: self, at.path)
        else:
            await self._loop.create_connection(
                lambda: self,
                at.host,
                at.port,
                ssl=at.tls,
                server_hostname=at.host if at.tls is not None else None,
            )

    async def _log_in(self, name: str) -> None:
        at = self.endpoint
        calls: list[asyncio.Future[Any]] = []
        if at.password:
            user = (at.username,) if at.username else ()
            calls.append(self.call("AUTH", *user, at.password))
        if at.db:
            calls.append(self.call("SELECT", at.db))
        calls.append(self.call("CLIENT", "SETNAME", name))
        for reply in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(reply, ResponseError):
                raise login_error(at, reply)
            if isinstance(reply, BaseException):
                raise reply
