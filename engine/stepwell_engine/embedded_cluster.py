"""A Cluster of servers as child processes, joined."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import hiredis

from stepwell_engine.embedded_process import EmbeddedServerError, Flavor, free_port
from stepwell_engine.embedded_server import EmbeddedServer

_POLL = 0.02
_SLOTS = 16_384


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
            time.sleep(_POLL)
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
            time.sleep(_POLL)
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
