"""`Store`: one namespace on one server, opened and checked; the door to its shards' transitions.

A Store belongs to the event loop it was opened on, as its Server does.
"""

from collections.abc import Sequence
from typing import Final, Self

from stepwell.clock import Clock, SystemClock
from stepwell.errors import NamespaceError, RunNotFoundError
from stepwell.gateway import check_namespace, check_shards
from stepwell.ids import shard_of_run
from stepwell_engine.store.keys import Keys
from stepwell_engine.store.nodes import Server, ServerInfo
from stepwell_engine.store.transitions import Transitions

SCHEMA: Final = 1
"""The layout of keys and values; raised when an older process could not read them."""


class Store:
    """A namespace and its shards.

    `warnings` says which settings of the server can lose data, `infos` what its masters said.

        store = await Store.open("redis://localhost", namespace="shop")
        await store.of_run(run_id).cancel(run_id, error=payload, grace_ms=10_000)
        await store.aclose()
    """

    __slots__ = ("clock", "infos", "namespace", "server", "shards", "warnings")

    def __init__(
        self,
        server: Server,
        namespace: str,
        shards: tuple[Transitions, ...],
        clock: Clock,
        infos: Sequence[ServerInfo] = (),
    ) -> None:
        self.server = server
        self.namespace = namespace
        self.shards = shards
        self.clock = clock
        self.infos = tuple(infos)
        self.warnings = tuple(risk for info in self.infos for risk in risks(info))

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        namespace: str = "stepwell",
        shards: int | None = None,
        clock: Clock | None = None,
        deadline: float = 5.0,
        name: str = "stepwell",
    ) -> Self:
        """Connect, check the server, open the namespace.

        `url`: every form of `stepwell_engine.store.url.parse`. `shards=None` takes the namespace as
        it is, and makes a new one with a single shard. `deadline` (seconds): it fails rather than
        waits. Raises ServerUnavailableError, ServerAuthError, ServerReadOnlyError, ServerTooOldError, ServerUrlError, ConfigError for a
        bad `namespace` or `shards`, and NamespaceError when the namespace has another shard count
        or a layout this version doesn't know.
        """
        check_namespace(namespace)
        check_shards(shards)
        clock = clock or SystemClock()
        server = await Server.open(url, connect_timeout=deadline, name=name)
        try:
            home = Transitions(server, Keys(namespace, 0), clock)
            count, schema = await home.namespace(shards or 1, SCHEMA, deadline=deadline)
            _check_stored(namespace, shards, count, schema)
            rest = (Transitions(server, Keys(namespace, i), clock) for i in range(1, count))
            return cls(server, namespace, (home, *rest), clock, await server.check_server())
        except BaseException:
            await server.aclose()
            raise

    @property
    def home(self) -> Transitions:
        """Shard 0: the namespace's registry is there."""
        return self.shards[0]

    def keys(self, shard: int) -> Keys:
        """The keys of one shard."""
        return self.shards[shard].keys

    def of_run(self, run_id: str) -> Transitions:
        """The shard of a run. RunNotFoundError when `run_id` can be none of this namespace."""
        try:
            return self.shards[shard_of_run(run_id)]
        except (IndexError, ValueError) as error:
            raise RunNotFoundError(
                f"{run_id!r} is no run of namespace {self.namespace!r}: it is no ULID, or names a "
                f"shard beyond its {len(self.shards)}"
            ) from error

    async def aclose(self) -> None:
        """Close all connections; calls in flight fail. Idempotent."""
        await self.server.aclose()


def _check_stored(namespace: str, shards: int | None, count: int, schema: int) -> None:
    if schema != SCHEMA:
        raise NamespaceError(
            f"namespace {namespace!r} has data layout {schema}, this version of stepwell has "
            f"{SCHEMA}; run the version that made it, or use another namespace="
        )
    if shards is not None and shards != count:
        raise NamespaceError(
            f"namespace {namespace!r} has {count} shard{'s' * (count != 1)}, not {shards}: the "
            f"count is fixed when a namespace is made; write shards={count} (or leave it out), or "
            "use another namespace="
        )


def risks(info: ServerInfo) -> list[str]:
    """What in a server's settings can lose data, each as one sentence with its remedy."""
    found: list[str] = []
    if info.maxmemory and info.maxmemory_policy != "noeviction":
        found.append(
            f"{info.endpoint} evicts keys when its memory is full (maxmemory-policy "
            f"{info.maxmemory_policy}): runs would be lost; set maxmemory-policy noeviction"
        )
    if not info.aof:
        found.append(
            f"{info.endpoint} has no append-only file: a crash loses what came after its last "
            "snapshot; set appendonly yes"
        )
    elif info.appendfsync == "no":
        found.append(
            f"{info.endpoint} leaves syncing to the system (appendfsync no): a power failure may "
            "lose half a minute; set appendfsync everysec or always"
        )
    return found
