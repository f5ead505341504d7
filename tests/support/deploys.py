"""Deploys: workers that start beside the one that an engine has."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stepwell.client import Client
from stepwell.testing.engine import Engine
from stepwell_workers.worker import Worker


@asynccontextmanager
async def registered_again(engine: Engine, client: Client) -> AsyncIterator[None]:
    """A deploy: another worker, with what `client` says now."""
    how: dict[str, Any] = {
        "namespace": engine.namespace,
        "shards": len(engine.store.shards),
        "clock": engine.clock,
    }
    async with client.bound(redis_url=engine.url, **how):
        worker = Worker([client], url=engine.url, concurrency=100, **how)
        await worker.start()
        try:
            yield
        finally:
            await worker.stop()
