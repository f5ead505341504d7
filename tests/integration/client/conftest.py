"""A server, and hands that do by direct transitions what coordinator and worker would do."""

from collections.abc import AsyncIterator, Iterator

import pytest

from stepwell.clock import SystemClock
from stepwell.gateway import GatewayOptions
from stepwell.ids import ulid_ms
from stepwell.serde.values import pack
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.gateway import StoreGateway
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import Leased, NewRun

GROUP = "stepwell"


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def fresh(redis: EmbeddedServer) -> EmbeddedServer:
    redis.command("FLUSHALL")
    return redis


@pytest.fixture(params=[1, 4])
async def store(fresh: EmbeddedServer, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A namespace of one shard and one of four."""
    opened = await Store.open(fresh.url, shards=request.param)
    yield opened
    await opened.aclose()


@pytest.fixture
async def gateway(store: Store, fresh: EmbeddedServer) -> AsyncIterator[StoreGateway]:
    options = GatewayOptions(
        url=fresh.url, namespace="stepwell", shards=None, clock=SystemClock(), deadline=5.0
    )
    opened = await StoreGateway.open(options)
    yield opened
    await opened.aclose()


class Hands:
    """Coordinator and worker of one app, one call at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.numbers: dict[tuple[str, str], str] = {}
        self.leased: dict[str, Leased] = {}

    async def register(self, app: str, *fns: str) -> None:
        configs = [(f"{app}\0{fn}", pack({"name": fn})) for fn in fns]
        _, rows = await self.store.home.register(1, configs)
        for field, number, _ in rows:
            app_id, _, fn_id = field.partition("\0")
            self.numbers[app_id, fn_id] = number

    async def entries(self) -> list[dict[str, bytes]]:
        """What is in all event streams, with the shard."""
        found: list[dict[str, bytes]] = []
        for shard in self.store.shards:
            key = shard.keys.events
            for _, flat in await self.store.server.call(key, "XRANGE", key, "-", "+"):
                pairs = zip(flat[::2], flat[1::2], strict=True)
                found.append(
                    {k.decode(): v for k, v in pairs} | {"shard": str(shard.shard).encode()}
                )
        return found

    async def create(
        self, run_id: str, fn: str, encoded: bytes, event_id: str, **more: str
    ) -> None:
        created = ulid_ms(run_id)
        number = self.numbers["shop", fn]
        blob = event_id.encode() + encoded
        run = NewRun(run_id, number, "shop", blob, 0, created, **more)  # type: ignore[arg-type]  # test
        await self.store.of_run(run_id).fanout(GROUP, [], [], [run], record_ttl_ms=1000)

    async def lease(self, run_id: str) -> Leased:
        shard = self.store.of_run(run_id)
        found = await shard.lease("w1", "tok", ["shop"], want=100, lease_ms=60_000, suspects=0)
        self.leased |= {item.run_id: item for item in found}
        return self.leased[run_id]

    async def finish(self, run_id: str, letter: str, value: object) -> None:
        item = await self.lease(run_id)
        reply = await self.store.of_run(run_id).commit(
            run_id, "", item.token, 0, ("F", letter, pack(value), "")
        )
        assert reply[0] == b"OK"


@pytest.fixture
async def hands(store: Store) -> Hands:
    made = Hands(store)
    await made.register("shop", "ship", "bill")
    return made
