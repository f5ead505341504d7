"""INFO to a value, and a server that is still reading its data."""

import pytest

from stepwell.errors import ServerLoadingError
from stepwell_engine.store.server_info import ServerInfo, read_loaded
from stepwell_engine.store.url import Endpoint

AT = Endpoint()


def test_redis() -> None:
    info = ServerInfo.parse(
        AT,
        b"# Server\r\nredis_version:6.2.14\r\n\r\nrole:slave\r\nmaster_host:ten\r\n"
        b"master_port:6380\r\naof_enabled:1\r\nmaxmemory:1024\r\nmaxmemory_policy:allkeys-lru\r\n"
        b"loading:1\r\ncluster_enabled:1\r\n",
    )
    assert info.product == "redis"
    assert info.version == (6, 2, 14)
    assert (info.role, info.master) == ("slave", "ten:6380")
    assert info.aof
    assert info.loading
    assert info.cluster
    assert (info.maxmemory, info.maxmemory_policy) == (1024, "allkeys-lru")


def test_valkey_tells_both_versions() -> None:
    info = ServerInfo.parse(
        AT, b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n"
    )
    assert (info.product, info.version, info.product_version) == ("valkey", (7, 2, 4), "9.1.2")


class Loading:
    """Node and wire of a server that says some times that it is loading."""

    endpoint = AT

    def __init__(self, times: int) -> None:
        self.times = times
        self.holds = 0

    async def ready(self) -> "Loading":
        return self

    async def call(self, *args: str) -> bytes:
        assert args == ("INFO",)
        self.times -= 1
        return b"loading:1\r\n" if self.times >= 0 else b"loading:0\r\n"

    def hold(self) -> None:
        self.holds += 1


@pytest.mark.anyio
async def test_each_look_at_a_server_that_is_loading_waits_for_a_backoff() -> None:
    node = Loading(3)
    info = await read_loaded(node, patience=10)  # type: ignore[arg-type]  # see Loading
    assert not info.loading
    assert node.holds == 3


@pytest.mark.anyio
async def test_patience_with_a_server_that_is_loading_ends() -> None:
    with pytest.raises(ServerLoadingError):
        await read_loaded(Loading(10**9), patience=0)  # type: ignore[arg-type]  # see Loading
