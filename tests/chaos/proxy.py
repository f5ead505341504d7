"""A loopback proxy for one victim process: it counts the calls that change something and strikes at the n-th.

It strikes before the call is sent on, or after the server has applied it and before the victim hears so. It kills the victim; or cuts
the connection, and the victim has to send the call again; or stops the victim until others have taken its work, and then lets go on
what it held back. In front of a Cluster it has a port for each master, and says so in the replies that tell where slots are.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

import hiredis

from stepwell_engine.store.scripts import load
from stepwell_engine.store.transitions import NAMES

When = Literal["before", "after"]
How = Literal["kill", "cut", "stall"]

CALLS: Final = frozenset(b"FCALL EVALSHA BLPOP LPOP XREADGROUP XGROUP XACK XDEL".split())


def _called(names: str) -> frozenset[bytes]:
    """What FCALL and EVALSHA name those scripts."""
    scripts = [load(name) for name in names.split()]
    return frozenset(text.encode() for s in scripts for text in (s.function, s.sha))


_NAMES: Final = {called: name for name in NAMES for called in _called(name)}

# Whatever the heartbeat's thread is doing, it happens at no fixed place of the program. To die at a call that only reads, or tidies up,
# is to die at the next one that writes.
_NOT_COUNTED: Final = _called("renew awaited candidates recent expired forget_consumers sweep")
# These ask whether there is anything to do, again and again: only one that finds something is a place of the program.
_DUE: Final = _called("due")
_ASKING: Final = _called("due lease") | {b"BLPOP", b"LPOP", b"XREADGROUP"}


@dataclass(frozen=True, slots=True)
class Strike:
    """At the `n`-th call (1 = the first), `before` it is sent or `after` it was applied.

    Calls that ask for work count among the latter only, when they bring some.
    """

    n: int
    when: When
    how: How


def requests(buffer: bytearray) -> Iterator[tuple[bytes, list[bytes]]]:
    """Take whole commands out of `buffer`: (as they were sent, their words)."""
    while (found := _command(buffer)) is not None:
        size, words = found
        raw = bytes(buffer[:size])
        del buffer[:size]
        yield raw, words


def _command(buffer: bytearray) -> tuple[int, list[bytes]] | None:
    at = buffer.find(b"\r\n")
    if at < 0:
        return None
    if buffer[:1] != b"*":
        raise ValueError(f"not a command: {bytes(buffer[:40])!r}")
    words: list[bytes] = []
    count, at = int(buffer[1:at]), at + 2
    for _ in range(count):
        end = buffer.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(buffer[at + 1 : end])
        at = end + 2 + size + 2
        if len(buffer) < at:
            return None
        words.append(bytes(buffer[end + 2 : end + 2 + size]))
    return at, words


@dataclass(frozen=True, slots=True)
class _Call:
    """A command on its way; `name`: of the command, or the script's hash."""

    name: bytes
    counted: bool
    text: str

    def applied(self, reply: object) -> bool:
        """Whether it is one to be counted, and did something."""
        if not self.counted or isinstance(reply, Exception):
            return False
        if self.name in _DUE:
            assert isinstance(reply, list)
            return bool(reply[0] or reply[5] or reply[6])
        return self.name not in _ASKING or bool(reply)


def _call(words: list[bytes]) -> _Call:
    name = words[0].upper()
    text = f"{name.decode()} {words[1].decode(errors='replace')[:48]}" if words[1:] else ""
    counted = name in CALLS
    if name in (b"FCALL", b"EVALSHA"):
        name, counted = words[1], words[1] not in _NOT_COUNTED
        text = f"{_NAMES.get(name, '?')}.lua"
    return _Call(name, counted, text)


@dataclass(slots=True, eq=False)
class _Link:
    """One connection of the victim, and how far its replies are."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    sent: deque[_Call] = field(default_factory=deque[_Call])
    replies: hiredis.Reader = field(default_factory=hiredis.Reader)

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Forwards a port of its own to each of `targets` (all on 127.0.0.1): one server, or a Cluster's masters.

        proxy = Proxy([server.port], Strike(7, "after", "kill"))
        proxy.kill = victim.kill
        await proxy.start()
        ...
        await proxy.stop()

    `fired` is set when it has struck; `count` tells how many calls it saw that it could strike before, and after.
    """

    def __init__(self, targets: Sequence[int], strike: Strike | None = None) -> None:
        self.count: dict[When, int] = {"before": 0, "after": 0}
        self.struck_at = ""
        self.fired = asyncio.Event()
        self.kill: Callable[[], object] = lambda: None
        self.stall: Callable[[], Awaitable[None]] = _nothing
        self.resume: Callable[[], object] = lambda: None
        self._targets = tuple(targets)
        self._ports: dict[int, int] = {}
        self._strike = strike
        self._links: set[_Link] = set()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """What the victim connects to."""
        return f"redis://127.0.0.1:{self._ports[self._targets[0]]}/0"

    async def start(self) -> None:
        """Listen on free ports."""
        for target in self._targets:
            server = await asyncio.start_server(partial(self._serve, target), "127.0.0.1", 0)
            self._servers.append(server)
            self._ports[target] = server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut all connections and listen no more."""
        for server in self._servers:
            server.close()
        for link in list(self._links):
            link.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(
        self, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            upstream, out = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        link = _Link(writer, out)
        self._links.add(link)
        try:
            await asyncio.gather(self._forward(reader, link), self._back(upstream, link))
        except (OSError, asyncio.CancelledError):
            pass  # either end is gone
        finally:
            link.cut()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, link: _Link) -> None:
        buffer = bytearray()
        while chunk := await reader.read(65536):
            buffer += chunk
            for raw, words in requests(buffer):
                call = _call(words)
                due = call.counted and call.name not in _ASKING and self._due("before", call)
                if due and not await self._fire(link):
                    return
                if link.server.is_closing():
                    return
                link.server.write(raw)
                link.sent.append(call)
                if due:
                    self.resume()
            await link.server.drain()
        raise ConnectionResetError

    def _due(self, when: When, call: _Call) -> bool:
        """Count a call; whether it is the one."""
        self.count[when] += 1
        strike = self._strike
        if (
            strike is None
            or (strike.when, strike.n) != (when, self.count[when])
            or self.fired.is_set()
        ):
            return False
        self.struck_at = call.text
        return True

    async def _back(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while chunk := await reader.read(65536):
            link.replies.feed(chunk)
            due = False
            while (reply := link.replies.gets()) is not False:
                call = link.sent.popleft()
                due = (call.applied(reply) and self._due("after", call)) or due
            if due:
                # What was applied is known to the server alone.
                if not await self._fire(link):
                    return
                self.resume()
            if link.client.is_closing():
                return
            link.client.write(self._moved(chunk))
            await link.client.drain()
        raise ConnectionResetError

    def _moved(self, chunk: bytes) -> bytes:
        """A reply with the masters' ports, in MOVED and CLUSTER SLOTS, replaced by ours.

        One that two chunks share slips through: the victim then calls that master unseen, as it may.
        """
        if len(self._ports) > 1:
            for target, port in self._ports.items():
                chunk = chunk.replace(b" 127.0.0.1:%d\r\n" % target, b" 127.0.0.1:%d\r\n" % port)
                chunk = chunk.replace(b"\r\n:%d\r\n" % target, b"\r\n:%d\r\n" % port)
        return chunk

    async def _fire(self, link: _Link) -> bool:
        """Strike; True when the connection goes on."""
        assert self._strike is not None
        if self._strike.how == "stall":
            self.fired.set()
            await self.stall()
            return True
        if self._strike.how == "kill":
            self.kill()
            for each in list(self._links):
                each.cut()
        else:
            link.cut()
        self.fired.set()
        return False


async def _nothing() -> None:
    pass
