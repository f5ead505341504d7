"""`--metrics-port`: /metrics, /healthz and /readyz over HTTP, from threads of its own.

User code that blocks the event loop makes a process unready, not dead: a probe gets its answer.
"""

from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final, Self, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stepwell.errors import ConfigError

MAX_AGE: Final = 30.0
"""Seconds since the last successful poll above which a process isn't ready."""

Answer = tuple[HTTPStatus, str, bytes]


class Health:
    """The health and metrics server of one process.

    `age` gives the seconds since the last successful poll of Redis (None = none yet): above
    `max_age`, `/readyz` answers 503. `/healthz` answers while the process lives. Port 0 takes a
    free one. `start` raises ConfigError if the port is taken.

        with Health(9464, registry=registry, age=lambda: coordinator.age) as health:
            print(health.port)
    """

    def __init__(
        self,
        port: int,
        *,
        registry: CollectorRegistry,
        age: Callable[[], float | None],
        max_age: float = MAX_AGE,
        host: str = "0.0.0.0",  # noqa: S104 - probes and scrapers come from outside
    ) -> None:
        self._address = (host, port)
        self._registry = registry
        self._age = age
        self._max_age = max_age
        self._server: _Server | None = None
        self._thread: Thread | None = None

    def start(self) -> None:
        """Listen and answer from now on."""
        host, port = self._address
        try:
            self._server = _Server(self._address, self._answer)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"metrics port {port} on {host} can't be used: {error}; "
                "write another --metrics-port"
            ) from error
        self._thread = Thread(
            target=self._server.serve_forever, name="stepwell-health", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, within half a second. Idempotent."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._address[1] if self._server is None else int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answer(self, path: str, accept: str) -> Answer:
        match path:
            case "/metrics":
                encode, kind = choose_encoder(accept)
                return HTTPStatus.OK, kind, encode(self._registry)
            case "/healthz":
                return _text(HTTPStatus.OK, "ok")
            case "/readyz":
                return self._ready()
            case _:
                return _text(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz")

    def _ready(self) -> Answer:
        age = self._age()
        if age is not None and age <= self._max_age:
            return _text(HTTPStatus.OK, "ok")
        since = "none yet" if age is None else f"the last was {age:.1f} s ago"
        return _text(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"not ready: no successful poll of Redis within {self._max_age:g} s ({since})",
        )


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], answer: Callable[[str, str], Answer]) -> None:
        self.answer = answer
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = 5.0  # a client that doesn't speak must not hold a thread

    def do_GET(self) -> None:
        server = cast("_Server", self.server)
        path = self.path.partition("?")[0]
        status, kind, body = server.answer(path, self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing: a line for each probe is noise."""


def _text(status: HTTPStatus, text: str) -> Answer:
    return status, "text/plain; charset=utf-8", f"{text}\n".encode()
