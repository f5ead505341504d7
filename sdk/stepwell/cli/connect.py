"""A command's connection: the client of no app in particular, or the namespace's store."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from stepwell.client import Client
    from stepwell_engine.store.store import Store

T = TypeVar("T")

NAMESPACE = "stepwell"
_APP = "stepwell-cli"


def ask(
    question: "Callable[[Client], Awaitable[T]]",
    url: str | None,
    namespace: str | None,
    shards: int | None = None,
) -> T:
    """What `question` answers, given a client of the namespace. Blocks."""
    from stepwell.client import Client

    async def main() -> T:
        client = Client(app_id=_APP, redis_url=url, namespace=namespace or NAMESPACE, shards=shards)
        async with client:
            return await question(client)

    return asyncio.run(main())


def look(
    question: "Callable[[Store], Awaitable[T]]",
    url: str | None,
    namespace: str | None,
    shards: int | None = None,
) -> T:
    """As `ask`, given the store behind the client: for what only the engine knows."""
    from stepwell.client import Client
    from stepwell_engine.store.store import Store

    async def main() -> T:
        options = Client(
            app_id=_APP, redis_url=url, namespace=namespace or NAMESPACE, shards=shards
        ).options()
        store = await Store.open(
            options.url, namespace=options.namespace, shards=options.shards, name=_APP
        )
        try:
            return await question(store)
        finally:
            await store.aclose()

    return asyncio.run(main())
