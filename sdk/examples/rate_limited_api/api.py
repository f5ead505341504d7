"""The API of somebody else, as a small local server: so many requests a second for each account, and 429 with Retry-After over it."""

import json
from collections import Counter, defaultdict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from time import monotonic
from typing import Self, cast

WINDOW = 1.0  # seconds


class Api:
    """While it is entered it answers `PUT /<account>/contacts/<id>`.

    with Api(limit=4) as api:
        print(api.url)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.contacts: dict[str, str] = {}
        self.answers: Counter[int] = Counter()
        self.most_a_second: Counter[str] = Counter()
        self._asked: dict[str, deque[float]] = defaultdict(deque)
        self._lock = Lock()
        self._server = _Server(self)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, account: str, contact: str, name: str) -> int:
        """Take a contact in, unless the account asks too often; the HTTP status."""
        with self._lock:
            now = monotonic()
            asked = self._asked[account]
            while asked and asked[0] <= now - WINDOW:
                asked.popleft()
            status = 429 if len(asked) >= self.limit else 200
            self.answers[status] += 1
            if status == 200:
                asked.append(now)
                self.contacts[contact] = name
                self.most_a_second[account] = max(self.most_a_second[account], len(asked))
            return status

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: Api) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api


class _Handler(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        account, _, contact = self.path.strip("/").split("/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = cast("_Server", self.server).api.put(account, contact, body["name"])
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing: a line for each request is noise."""
