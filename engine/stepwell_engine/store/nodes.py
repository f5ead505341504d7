"""`Server`: all nodes behind one URL (standalone, Sentinel, Cluster); commands find their node.

Commands of one loop turn leave each node's shared connection in one write.
"""

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Sequence
from typing import Any, Final, Self, cast

from redis.exceptions import AskError, MovedError, NoScriptError, OutOfMemoryError, ResponseError

from stepwell.errors import ServerUnavailableError, StepwellError
from stepwell_engine.store.cluster import SlotTable, by_slot, slot_of
from stepwell_engine.store.errors_map import (
    AGAIN,
    FLOOR,
    RETRYABLE,
    final,
    read_only,
    too_old,
    unavailable,
)
from stepwell_engine.store.node import Node, Resolve, Settings, ask, fixed, through_sentinels
from stepwell_engine.store.scripts import Script
from stepwell_engine.store.server_info import ServerInfo, read, read_loaded
from stepwell_engine.store.url import Endpoint, ServerUrlError, Target, parse
from stepwell_engine.store.wire import Arg, Counters

REPLY_SLACK: Final = 5.0  # seconds a blocking reply may be late before its connection is given up
_REFRESH_EVERY: Final = 0.5  # seconds between two readings of the slot table, at least
_MAX_HOPS: Final = 5  # MOVED replies in a row before a backoff: two nodes disagree
_MAX_LOADS: Final = 3  # NOSCRIPT replies in a row before we believe them

__all__ = ["Arg", "Counters", "Endpoint", "Server", "ServerInfo"]


class Server:
    """Redis as the store uses it. Belongs to the event loop it was opened on.

        server = await Server.open("redis://localhost")
        await server.script("{ns:0}", script, ["{ns:0}"], [1, 2])
        await server.aclose()

    `counters` are of the shared connections, `blocking_counters` of those for blocking commands.
    """

    def __init__(self, target: Target, settings: Settings) -> None:
        self.counters = Counters()
        self.blocking_counters = Counters()
        self._target = target
        self._settings = settings
        self._nodes: dict[Endpoint, Node] = {}
        self._table: SlotTable[Node] | None = None
        self._only: Node
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        connect_timeout: float = 5.0,
        reply_timeout: float = 30.0,
        name: str = "stepwell",
    ) -> Self:
        """Connects and checks that the server will do. The URL's forms: see `url.parse`.

        Times in seconds; `reply_timeout` is how long a connection that owes replies may be silent.
        Fails rather than waits: ServerUnavailableError, ServerAuthError, ServerReadOnlyError (a
        replica), ServerTooOldError (before 6.2), ServerUrlError.
        """
        server = cls(parse(url), Settings(name, connect_timeout, reply_timeout))
        try:
            await server._start()
        except BaseException:
            await server.aclose()
            raise
        return server

    @property
    def is_cluster(self) -> bool:
        return self._table is not None

    @property
    def only(self) -> Node | None:
        """The one server; None of a Cluster."""
        return None if self.is_cluster else self._only

    def nodes(self) -> tuple[Endpoint, ...]:
        """The masters, as known now."""
        return tuple(node.endpoint for node in self._masters())

    def same_node(self, keys: Iterable[str]) -> list[list[str]]:
        """Groups keys so that one command may name all of a group: in a Cluster, by slot."""
        keys = list(keys)
        return by_slot(keys) if self.is_cluster else [keys] if keys else []

    def call(self, key: str, *args: Arg) -> asyncio.Future[Any]:
        """One command, sent to the owner of `key` at the end of this loop turn.

        For reads, and for writes whose loss the caller handles: it follows MOVED and ASK but is
        not sent again when the connection is lost. The future raises ServerUnavailableError,
        ServerAuthError, or redis.exceptions.ResponseError for any other error reply.
        """
        if self._table is None:
            wire = self._only.wire
            if wire is not None and not wire.closed:
                return wire.call(*args)
        return self._spawn(self._follow(self._route(key), None, args, None, key, None))

    def script(
        self,
        key: str,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Arg],
        *,
        deadline: float | None = None,
        push: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """Runs an idempotent script on the owner of `key`; to be awaited. `push`: as `Wire.push`.

        It is queued right here, before the await, so calls leave in the order they are made. When
        the connection is lost or the server can't write just now (failover, loading, out of
        memory), it is sent again, in order, until `deadline` (seconds; None = for ever). Past it:
        ServerUnavailableError (ServerLoadingError), ServerFullError or ServerReadOnlyError, and
        whether it was done isn't known.
        ServerAuthError at once; redis.exceptions.ResponseError for an error of the script.
        """
        argv = (len(keys), *keys, *args)
        seen: list[Exception] = []
        node = self._route(key)
        wire = node.wire
        sent = None
        if wire is not None and not wire.closed:
            sent = node.scripts.run(wire, script, argv)
            if push:
                wire.push()
        following = self._follow(node, sent, argv, script, key, seen)
        return following if deadline is None else self._until(deadline, node, following, seen)

    async def blocking(
        self,
        key: str,
        *args: Arg,
        timeout: float,  # noqa: ASYNC109 - the command's own block time, told to the server
        label: str = "",
    ) -> Any:
        """A blocking command (BLPOP, XREADGROUP BLOCK) on a connection of its own.

        `args` hold the server-side block time; `timeout` is that time in seconds, 5 s after which
        a silent connection is given up. `label` names the connection; it is reused by later calls.
        Cancelling closes it, so that the server stops serving the call; an element popped in that
        very moment is lost. Errors as for `call`, after a backoff where a loop would spin.
        """
        node, asking = self._route(key), False
        for _ in range(_MAX_HOPS):
            try:
                wire = await node.take(label)
            except ServerUnavailableError:
                self._refresh_soon()
                raise
            try:
                if asking:
                    ask(wire)
                async with asyncio.timeout(timeout + REPLY_SLACK):
                    reply = await wire.call(*args)
            except AskError as error:
                node.give(label, wire)
                node, asking = self._redirect(node, error), not isinstance(error, MovedError)
            except RETRYABLE as error:
                node.drop(wire)
                self._trouble(node)
                raise final(node.endpoint, error) from error
            except TimeoutError as error:
                node.drop(wire)
                raise unavailable(node.endpoint, "a blocking call got no reply") from error
            except ResponseError:
                node.give(label, wire)
                raise
            except BaseException:
                node.drop(wire)
                raise
            else:
                node.give(label, wire)
                return reply
        raise unavailable(node.endpoint, "the Cluster's nodes disagree about who owns a slot")

    async def each_master(self, *args: Arg) -> dict[Endpoint, Any]:
        """One command on every master; errors as for `call`."""
        nodes = self._masters()
        wires = [await node.ready() for node in nodes]
        replies = await asyncio.gather(*(wire.call(*args) for wire in wires))
        return {node.endpoint: reply for node, reply in zip(nodes, replies, strict=True)}

    async def tidy_functions(self, own: Collection[str]) -> None:
        """Delete functions that versions before this one left on the masters; `own` are this version's. Errors as for `call`."""
        for node in self._masters():
            await node.scripts.tidy(await node.ready(), own)

    async def check_server(self) -> list[ServerInfo]:
        """What each master says about itself, with its clock. Errors as for `call`."""
        return [await read(await node.ready(), full=True) for node in self._masters()]

    async def aclose(self) -> None:
        """Closes all connections; calls in flight fail with ServerUnavailableError. Idempotent."""
        self._closed = True
        if self._refreshing is not None:  # it makes nodes
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        await asyncio.gather(*(node.aclose() for node in list(self._nodes.values())))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(
        self,
        node: Node,
        sent: asyncio.Future[Any] | None,
        argv: tuple[Any, ...],
        script: Script | None,
        key: str,
        seen: list[Exception] | None,
    ) -> Any:
        """Awaits what was sent; sends it (again) where and as long as that makes sense.

        `seen` gets the last reason for sending again; None = don't, only follow redirections.
        """
        asking = retried = False
        hops = loads = 0
        function = script is not None and node.scripts.functions
        while True:
            try:
                if sent is None:
                    wire = await node.ready()
                    if script and loads > 1:
                        await node.scripts.load(wire, script)
                    if asking:
                        ask(wire)
                        asking = False
                    function = script is not None and node.scripts.functions
                    sent = node.scripts.run(wire, script, argv) if script else wire.call(*argv)
                reply = await sent
            except AskError as error:  # and MovedError
                hops += 1
                node, asking = self._redirect(node, error), not isinstance(error, MovedError)
                if hops > _MAX_HOPS:
                    hops = 0
                    self._trouble(node)
            except NoScriptError:
                loads += 1
                if script is None or loads > _MAX_LOADS:
                    raise
                node.scripts.forget(script)
            except AGAIN as error:
                if function and isinstance(error, OutOfMemoryError):
                    node.scripts.full()
                elif seen is None or self._closed:
                    self._refresh_soon()
                    raise
                else:
                    seen[:] = [error]
                    self._trouble(node)
                    node, retried, loads = self._route(key), True, 0
            else:
                if retried:
                    node.calm()
                return reply
            sent = None

    async def _until(
        self,
        deadline: float,
        node: Node,
        following: Coroutine[Any, Any, Any],
        seen: list[Exception],
    ) -> Any:
        try:
            async with asyncio.timeout(deadline):
                return await following
        except TimeoutError as error:
            following.close()  # in case it never began
            if seen:
                raise final(node.endpoint, seen[0]) from error
            what = f"no reply within the deadline of {deadline:g} s; it may still have been done"
            raise unavailable(node.endpoint, what) from error

    def _route(self, key: str) -> Node:
        if self._table is None:
            return self._only
        # A slot without an owner: any node will answer with MOVED or CLUSTERDOWN.
        return self._table.owner(slot_of(key)) or self._table.masters[0]

    def _masters(self) -> tuple[Node, ...]:
        return (self._only,) if self._table is None else self._table.masters

    def _redirect(self, node: Node, error: AskError) -> Node:
        """The node that MOVED or ASK names; an empty host means the one that replied."""
        host = cast("str", cast("Any", error).host)
        target = self._at(host or node.endpoint.host, error.port)
        if isinstance(error, MovedError) and self._table is not None:
            self._table.moved(int(error.slot_id), target)
            self._refresh_soon()
        return target

    def _trouble(self, node: Node) -> None:
        node.hold()
        self._refresh_soon()  # a replica may have been promoted

    def _at(self, host: str, port: int) -> Node:
        return self._node(self._target.seeds[0].at(host, port))

    def _node(self, endpoint: Endpoint) -> Node:
        return self._nodes.get(endpoint) or self._make(fixed(endpoint), endpoint)

    def _make(self, resolve: Resolve, known: Endpoint) -> Node:
        if self._closed:
            raise unavailable(known, "this process has closed it")
        node = Node(resolve, known, self._settings, self.counters, self.blocking_counters)
        self._nodes[known] = node
        return node

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _start(self) -> None:
        target = self._target
        if target.master is not None:
            find = through_sentinels(target.seeds, target.service, target.master, self._settings)
            self._only = self._make(find, target.master)
            await self._only.ready()
        else:
            self._only = await self._first_seed()
        info = await read_loaded(self._only, self._settings.connect_timeout)
        if info.version[: len(FLOOR)] < FLOOR:
            raise too_old(info.endpoint, info.product_version)
        if info.cluster:
            await self._read_table()
        elif len(target.seeds) > 1 and target.master is None:
            raise ServerUrlError(
                f"the URL names {len(target.seeds)} hosts, but {info.endpoint} is no Cluster; name "
                "one host, or write redis+sentinel://host1,host2/service for Sentinels"
            )
        elif info.role != "master":
            raise read_only(info.endpoint, f"Its master is {info.master}")

    async def _first_seed(self) -> Node:
        for seed in self._target.seeds[:-1]:
            try:
                await self._node(seed).ready()
            except ServerUnavailableError:
                continue
            return self._node(seed)
        node = self._node(self._target.seeds[-1])
        await node.ready()
        return node

    def _refresh_soon(self) -> None:
        if self._table is None or self._refreshing is not None or self._closed:
            return
        if asyncio.get_running_loop().time() > self._refreshed + _REFRESH_EVERY:
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        try:
            await self._read_table()
        except (StepwellError, ResponseError):
            pass  # whoever needs it meets the same trouble, and asks again
        finally:
            self._refreshed = asyncio.get_running_loop().time()
            self._refreshing = None

    async def _read_table(self) -> None:
        """Asks known nodes for the slots, those that are connected first."""
        nodes = sorted(self._nodes.values(), key=lambda n: n.wire is None or n.wire.closed)
        trouble: Exception = unavailable(self._target.seeds[0], "no node knows the Cluster's slots")
        for node in nodes:
            try:
                reply = await (await node.ready()).call("CLUSTER", "SLOTS")
            except AGAIN as error:
                trouble = error
                continue
            table = SlotTable[Node].parse(reply, node.endpoint.host, self._at)
            if table.masters:
                self._table = table
                await self._forget_others(table)
                return
        raise trouble

    async def _forget_others(self, table: SlotTable[Node]) -> None:
        """Closes nodes that own nothing any more, unless replies are still owed there."""
        for endpoint, node in list(self._nodes.items()):
            gone = node not in table.masters and endpoint not in self._target.seeds
            if gone and (node.wire is None or not node.wire.pending):
                del self._nodes[endpoint]
                await node.aclose()
