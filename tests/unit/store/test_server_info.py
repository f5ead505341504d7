"""INFO to a value."""

from stepwell_engine.store.server_info import ServerInfo
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
