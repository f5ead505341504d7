"""What a server says about itself, read once at the start and by `stepwell doctor`."""

import asyncio
from dataclasses import dataclass, replace

from redis.exceptions import ResponseError

from stepwell.errors import StepwellError
from stepwell_engine.store.errors_map import LoadingError, final
from stepwell_engine.store.node import Node
from stepwell_engine.store.url import Endpoint
from stepwell_engine.store.wire import Wire


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One server's INFO, as far as Stepwell depends on it."""

    endpoint: Endpoint
    product: str  # "redis" or "valkey"
    version: tuple[int, ...]  # of the Redis features: Valkey reports the Redis it is equal to
    product_version: str
    role: str  # "master" or "slave", the server's words
    cluster: bool
    loading: bool
    aof: bool
    maxmemory: int  # bytes, 0 = no bound
    maxmemory_policy: str
    used_memory: int  # bytes
    master: str = ""  # of a replica, "host:port"
    appendfsync: str = ""  # empty: CONFIG is forbidden to us
    clock_ms: int = 0  # the server's TIME

    @classmethod
    def parse(cls, endpoint: Endpoint, info: bytes) -> "ServerInfo":
        """Reads the reply to INFO."""
        lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
        got = {name: value.strip() for name, colon, value in lines if colon}
        version = got.get("redis_version", "0")
        return cls(
            endpoint=endpoint,
            product=got.get("server_name", "redis"),
            version=tuple(int(part) for part in version.split(".") if part.isdigit()),
            product_version=got.get("valkey_version", version),
            role=got.get("role", "master"),
            cluster=got.get("cluster_enabled") == "1",
            loading=got.get("loading") == "1",
            aof=got.get("aof_enabled") == "1",
            maxmemory=int(got.get("maxmemory", 0)),
            maxmemory_policy=got.get("maxmemory_policy", ""),
            used_memory=int(got.get("used_memory", 0)),
            master=f"{got['master_host']}:{got['master_port']}" if "master_host" in got else "",
        )


async def read(wire: Wire, *, full: bool = False) -> ServerInfo:
    """Asks the server; `full` adds its clock and `appendfsync`. Errors as for `Wire.call`."""
    info = ServerInfo.parse(wire.endpoint, await wire.call("INFO"))
    if not full:
        return info
    seconds, micros = await wire.call("TIME")
    try:
        fsync: list[bytes] = await wire.call("CONFIG", "GET", "appendfsync")
    except (StepwellError, ResponseError):  # managed servers forbid CONFIG
        fsync = []
    return replace(
        info,
        clock_ms=int(seconds) * 1000 + int(micros) // 1000,
        appendfsync=bytes(fsync[1]).decode() if fsync else "",
    )


async def read_loaded(node: Node, patience: float) -> ServerInfo:
    """The same once the server has read its data. Errors as for `Node.ready`, ServerLoadingError after `patience` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while (info := await read(await node.ready())).loading:
        if loop.time() > deadline:
            raise final(info.endpoint, LoadingError("LOADING"))
        node.hold()
    return info
