"""The server of the chaos tests: one that writes everything down before it answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell_engine.embedded import EmbeddedServer


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """AOF, `appendfsync always`: it may be killed, and what it acknowledged is there again."""
    with EmbeddedServer(
        directory=tmp_path / "data", appendonly=True, appendfsync="always"
    ) as server:
        yield server
