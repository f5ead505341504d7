"""`Store.open`: what it checks, and what it says when something is wrong."""

import pytest

from stepwell.errors import (
    ConfigError,
    NamespaceError,
    RunNotFoundError,
    ServerUnavailableError,
)
from stepwell.ids import run_id
from stepwell_engine.embedded import EmbeddedServer, free_port
from stepwell_engine.store.store import Store

pytestmark = pytest.mark.anyio


async def test_a_new_namespace_has_the_shards_asked_for_ever_after(fresh: EmbeddedServer) -> None:
    first = await Store.open(fresh.url, namespace="a", shards=3)
    later = await Store.open(fresh.url, namespace="a")
    other = await Store.open(fresh.url, namespace="b")
    assert [len(s.shards) for s in (first, later, other)] == [3, 3, 1]
    assert later.keys(2).root == "{a:2}"
    for opened in (first, later, other):
        await opened.aclose()


async def test_another_shard_count_is_refused_with_both_numbers(fresh: EmbeddedServer) -> None:
    await (await Store.open(fresh.url, shards=3)).aclose()
    with pytest.raises(NamespaceError, match=r"'stepwell' has 3 shards, not 4.*write shards=3"):
        await Store.open(fresh.url, shards=4)


async def test_a_newer_layout_is_refused(fresh: EmbeddedServer) -> None:
    await (await Store.open(fresh.url)).aclose()
    fresh.command("HSET", "{stepwell:0}:meta", "schema", "99")
    with pytest.raises(NamespaceError, match="data layout 99, this version of stepwell has 1"):
        await Store.open(fresh.url)


@pytest.mark.parametrize(
    ("namespace", "words"),
    [
        ("", "non-empty"),
        ("a{b", "braces"),
        ("a b", "white space"),
        ("x" * 65, "65 characters; write at most 64"),
        (3, "namespace=3"),
    ],
)
async def test_bad_namespaces_are_named(namespace: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        await Store.open("redis://127.0.0.1:1", namespace=namespace)


@pytest.mark.parametrize("shards", [0, 1025, True, "2", 1.0])
async def test_bad_shard_counts_are_named(shards: int) -> None:
    with pytest.raises(ConfigError, match=r"shards=.*from 1 to 1024"):
        await Store.open("redis://127.0.0.1:1", shards=shards)


async def test_an_absent_server_is_said_at_once(fresh: EmbeddedServer) -> None:
    with pytest.raises(ServerUnavailableError, match="Is it running"):
        await Store.open(f"redis://127.0.0.1:{free_port()}")


async def test_runs_find_their_shard(store: Store) -> None:
    for shard in range(len(store.shards)):
        assert store.of_run(run_id(1, "e", "a", "f", shard)).shard == shard
    for bad in ("", "nonsense", run_id(1, "e", "a", "f", 5)):
        with pytest.raises(RunNotFoundError, match="no run of namespace 'stepwell'"):
            store.of_run(bad)


async def test_risky_settings_are_warned_of(fresh: EmbeddedServer) -> None:
    fresh.command("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")
    try:
        store = await Store.open(fresh.url)
        await store.aclose()
    finally:
        fresh.command("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
    assert ["noeviction" in w for w in store.warnings] == [True, False]
    assert "appendonly yes" in store.warnings[1]
