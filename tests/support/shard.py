"""One shard to drive by hand: the transitions with short names and a clock that moves when told."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgpack

from stepwell.clock import VirtualClock
from stepwell.ids import run_id, step_key
from stepwell.serde import pack
from stepwell_engine.limits.cancel import Registration
from stepwell_engine.limits.timeouts import Timeouts
from stepwell_engine.store.keys import Keys
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.transitions import Arg, DueReply, Leased, NewEvent, NewRun, Transitions

CANCELLED = pack({"code": "cancelled", "message": "asked to", "name": "RunCancelledError"})
TIMEOUT = pack({"code": "timeout", "message": "too late", "name": "InvokeTimeoutError"})
LOST = pack({"code": "lost", "message": "the worker died", "name": "WorkerLostError"})
HEAD = pack(["sleep", "nap", 0, {}])


def watching(*cancels: tuple[str, str, str], us: int = 0) -> dict[str, Any]:
    """Flow control of a run that is cancelled by events (name, prefix, path) accepted after `us`, and by either timeout."""
    spans = Timeouts(60_000, 90_000)
    fields: list[str | bytes] = [*spans.fields, "fx", f"tc{len(cancels)}"]
    for number, (name, prefix, path) in enumerate(cancels):
        written = Registration(us + 1, 0, name, prefix.encode(), path, {}).write()
        fields += (f"cn:{number}", written)
    return {"to": spans.start_ms, "cn": cancels, "f": fields}


STOP = ("app/stop", "~p\0key", "~p")
WATCHED = watching(STOP)


@dataclass
class Shard:
    """A shard of a server that has been emptied."""

    server: Server
    number: int = 0
    clock: VirtualClock = field(default_factory=VirtualClock)
    lease_ms: int = 20_000
    alive_ms: int = 15_000
    grace_ms: int = 10_000

    def __post_init__(self) -> None:
        self.keys = Keys("stepwell", self.number)
        self.t = Transitions(self.server, self.keys, self.clock)
        self._serial = count(1)

    def key(self, name: str, *params: str) -> str:
        return self.keys.build(name, *params)

    async def do(self, command: str, name: str, *args: Arg, params: tuple[str, ...] = ()) -> Any:
        key = self.key(name, *params)
        return await self.server.call(key, command, key, *args)

    async def fields(self, run: str) -> dict[str, bytes]:
        flat = await self.do("HGETALL", "run", params=(run,))
        return {k.decode(): v for k, v in zip(flat[::2], flat[1::2], strict=True)}

    async def field(self, run: str, name: str) -> bytes | None:
        found: bytes | None = await self.do("HGET", "run", name, params=(run,))
        return found

    async def status(self, run: str) -> str:
        return ((await self.field(run, "st")) or b"").decode()

    async def entries(self, stream: str = "events") -> list[tuple[bytes, dict[str, bytes]]]:
        rows = await self.do("XRANGE", stream, "-", "+")
        return [(i, {k.decode(): v for k, v in zip(f[::2], f[1::2], strict=True)}) for i, f in rows]

    async def kinds(self, stream: str = "events") -> list[str]:
        """The entries that mean something: kind, and name for internal events."""
        rows = [f for _, f in await self.entries(stream) if f["k"] != b"w"]
        return [f"{f['k'].decode()} {f.get('n', b'').decode()}".rstrip() for f in rows]

    def new_id(self) -> str:
        """Ids sort as they are made, also those of one ms: what a random sequence does must not depend on how quick it was."""
        made = run_id(self.clock.now_ms(), "", "app", "fn", self.number)
        return f"{made[:10]}{next(self._serial):014d}{made[24:]}"

    async def create(
        self, number: str = "1", lane: str = "app", *, run: str = "", start_ms: int = 0, parent: str = "",
        no_emit: bool = False, score: int = 0, key: str = "", flow: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        run = run or self.new_id()
        created = score or self.clock.now_ms()
        new = NewRun(
            run, number, lane, b"E" * 26 + b"blob", start_ms, created, no_emit, parent, key
        )
        if flow is None:
            await self.t.fanout("stepwell", [], [], [new], record_ttl_ms=60_000)
        else:
            asked = {"ts": created, "us": created * 1000, **flow}
            new = new._replace(flow=msgpack.packb(asked, use_bin_type=False))
            await self.t.admit("stepwell", [], [], [new], record_ttl_ms=60_000)
        return run

    async def lease(
        self, want: int = 10, *, worker: str = "w1", suspects: int = 0, lanes: tuple[str, ...] = ("app",),
        **more: Any,
    ) -> list[Leased]:  # fmt: skip
        prefix = f"{worker}-{next(self._serial)}"
        return await self.t.lease(
            worker, prefix, lanes, want=want, lease_ms=self.lease_ms, suspects=suspects, **more
        )

    async def leased(self, **more: Any) -> Leased:
        """A new run, leased."""
        run = await self.create(**more)
        found = [item for item in await self.lease(100) if item.run_id == run]
        assert len(found) == 1
        return found[0]

    async def commit(
        self, item: Leased, *clause: Arg, ops: tuple[Arg, ...] = (), dv: int = 0
    ) -> str:
        code, _ = await self.t.commit(item.run_id, item.step, item.token, dv, clause, ops)
        return code.decode()

    async def alive(self, worker: str = "w1", *items: Leased) -> list[str]:
        names = [(i.run_id + (f":{i.step}" if i.step else ""), i.token) for i in items]
        return await self.t.renew(worker, names, alive_ms=self.alive_ms, lease_ms=self.lease_ms)

    async def due(self, limit: int = 100) -> DueReply:
        return await self.t.due(
            limit=limit, horizon_ms=5_000, timeout_error=TIMEOUT, cancelled_error=CANCELLED
        )

    async def close_due(self) -> list[str]:
        """Let what is due happen, the ends of windows too: the functions of the runs that these became."""
        windows = (await self.due()).windows
        return await self.t.close(windows) if windows else []

    async def reclaim(self, most: int = 3) -> list[str]:
        """Every expired lease, taken away: the outcomes."""
        items = [(e.item, e.token, most, LOST) for e in await self.t.expired(100)]
        return [outcome for _, outcome in await self.t.reclaim(items)] if items else []

    async def cancel(self, run: str, tombstone: str = "") -> str:
        return await self.t.cancel(
            run, error=CANCELLED, grace_ms=self.grace_ms, tombstone=tombstone
        )

    async def send(
        self, seed: str, *events: NewEvent, max_len: int = 1000
    ) -> tuple[str, list[str]]:
        return await self.t.ingest(
            seed, events, max_len=max_len, dedupe_ms=86_400_000, deadline=None
        )

    def wait(self, ms: int) -> None:
        self.clock.offset_ms += ms


def step(name: str) -> str:
    """The key of the first use of a step id."""
    return step_key(name, 0)


def done(name: str, record: bytes = b"done", attempts: bytes = b"") -> tuple[Arg, ...]:
    return ("d", step(name), record, attempts, 0)


def failed(name: str, delay_ms: int = 1_000, attempts: bytes = b"01") -> tuple[Arg, ...]:
    return ("a", step(name), delay_ms, attempts, HEAD)


def sleep(name: str, ms: int, mode: str = "d") -> tuple[Arg, ...]:
    return ("z", step(name), mode, ms, HEAD)


def wait(name: str, event: str, ms: int = 60_000, path: str = "", reg: str = "") -> tuple[Arg, ...]:
    return ("w", step(name), ms, event, f"{path}\0{'0' * 16}", path, HEAD, reg)


def signal(name: str, ms: int = 60_000) -> tuple[Arg, ...]:
    return ("g", step(name), ms, HEAD)


def invoke(name: str, ms: int = 60_000, cancel: str = "") -> tuple[Arg, ...]:
    extra = pack(["app", "child", ""])
    return ("i", step(name), ms, HEAD, b"blob", "0" * 16, extra, cancel)


def planned(name: str) -> tuple[Arg, ...]:
    return ("p", step(name), HEAD)
