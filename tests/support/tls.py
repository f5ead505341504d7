"""TLS in front of a plain server: the servers of the wheels are built without it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Authority:
    """A throwaway CA, as a file that a URL can name."""

    ca: trustme.CA
    path: Path

    @classmethod
    def make(cls, path: Path) -> "Authority":
        """A new one; its certificate is written to `path`."""
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(path))
        return cls(ca, path)

    def context(self, *names: str, ask: bool = False) -> ssl.SSLContext:
        """A server's side: a certificate for `names`; with `ask`, clients must show one of this CA's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        if ask:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Front:
    """Listens with TLS and passes what it hears to a plain port. `handshakes` counts those that succeeded."""

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        self.port = 0
        self.handshakes = 0
        self._target = target
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Front"]:
        """Serve while the block lasts."""
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        # A client that refuses the certificate is an error to asyncio's server.
        loop.set_exception_handler(lambda *_: None)
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            loop.set_exception_handler(handler)

    def cut(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handshakes += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        back, out = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, out))
                group.create_task(_pump(back, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            out.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    raise ConnectionResetError
