"""Typed stubs of the Lua transitions of one shard: the only callers of the scripts.

Each method is one script, so one atomic write. All of them may be sent again after a lost reply; the scripts' headers say why.
"""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

from stepwell.clock import Clock
from stepwell_engine.store.keys import Keys
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.scripts import Script, load
from stepwell_engine.store.shapes import (
    Arg,
    Candidates,
    DueReply,
    Expired,
    Guard,
    Leased,
    NewEvent,
    NewRun,
    due_reply,
    expired,
    leased,
    pairs,
    run_args,
    texts,
)

__all__ = ["Arg", "DueReply", "Expired", "Leased", "NewEvent", "NewRun", "Transitions"]


class Transitions:
    """The transitions of one shard, on one server.

    >>> shard = Transitions(server, Keys("stepwell", 0), clock)
    >>> await shard.cancel(run_id, error=payload, grace_ms=10_000)
    'k'
    """

    __slots__ = ("_clock", "_keys", "_root", "_scripts", "_server", "keys", "shard")

    def __init__(self, server: Server, keys: Keys, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self.keys = keys
        self._root = (keys.root,)
        self.shard = int(keys.root.rpartition(":")[2][:-1])
        self._scripts = {name: load(name) for name in NAMES}

    def _call(
        self, name: str, *args: Arg, deadline: float | None = None, push: bool = False
    ) -> Awaitable[Any]:
        return self._server.script(
            self.keys.root, self._scripts[name], self._root, args, deadline=deadline, push=push
        )

    async def ingest(
        self,
        seed: str,
        events: Sequence[NewEvent],
        *,
        max_len: int,
        dedupe_ms: int,
        deadline: float | None,
    ) -> tuple[str, list[str]]:
        """Accept events; returns the time characters of their ids and, for each, the first event's id if a duplicate."""
        args: list[Arg] = [self._clock.offset_ms, seed, 3_600_000, max_len, dedupe_ms, len(events)]
        for e in events:
            args += (e.kind, e.name, e.encoded, e.entropy, e.id_hash, e.extra)
        reply = await self._call("ingest", *args, deadline=deadline, push=True)
        return reply[0].decode(), [first.decode() for first in reply[1:]]

    async def fanout(
        self,
        group: str,
        entries: Sequence[Arg],
        records: Sequence[tuple[str, bytes]],
        runs: Sequence[NewRun],
        *,
        record_ttl_ms: int,
        guard: Guard | None = None,
    ) -> int | None:
        """Create runs, write event records and acknowledge the entries that caused them; returns how many were created.

        `guard` (single-shard namespaces): unless it holds, nothing is written and None is returned.
        """
        head = self._head(group, entries, records, record_ttl_ms, guard)
        reply = await self._call("fanout", *head, *run_args(runs), push=True)
        return int(reply) if guard is None or guard.holds(reply) else None

    def arrive(
        self, group: str, consumer: str, after: Arg, most: int, version: bytes, names: Iterable[Arg], *,
        deadline: float | None = None,
    ) -> Awaitable[list[Any]]:  # fmt: skip
        """Create the runs of what `consumer` was delivered after that entry. For standing.py, which has `names` and reads the reply."""
        args = group, consumer, after, most, version, *names
        return self._call("arrive", self._clock.offset_ms, *args, deadline=deadline)

    def arrive_command(
        self, group: str, consumer: str, after: Arg, most: int, version: bytes, names: Iterable[Arg]
    ) -> tuple[Script, list[Arg]]:
        """`arrive` for a connection of the caller's: its script, and what goes behind `Loaded.calling`."""
        argv = [1, *self._root, 0, group, consumer, after, most, version, *names]
        return self._scripts["arrive"], argv

    async def admit(
        self,
        group: str,
        entries: Sequence[Arg],
        records: Sequence[tuple[str, bytes]],
        runs: Sequence[NewRun],
        *,
        record_ttl_ms: int,
        guard: Guard | None = None,
    ) -> list[str] | None:
        """`fanout` for runs that flow control decides about; the function number of each run created, None when the guard does not hold."""
        head = self._head(group, entries, records, record_ttl_ms, guard)
        reply = await self._call("admit", *head, *run_args(runs, flow=True), push=True)
        return [n.decode() for n in reply] if guard is None or guard.holds(reply) else None

    def _head(
        self,
        group: str,
        entries: Sequence[Arg],
        records: Sequence[tuple[str, bytes]],
        ttl_ms: int,
        guard: Guard | None,
    ) -> list[Arg]:
        """What fanout.lua and admit.lua take before the runs."""
        asked = guard.args() if guard else []
        args: list[Arg] = [self._clock.offset_ms, group, ttl_ms, len(asked), *asked]
        args += (len(entries), *entries)
        return args + pairs(records)

    async def plan(self, event: str, record: bytes, *, ttl_ms: int) -> bytes:
        """Fix an event's fan-out plan; returns the plan that holds."""
        return bytes(await self._call("plan", event, record, ttl_ms))

    async def remember(
        self, events: Iterable[tuple[str, int, bytes]], *, most: int, age_ms: int, ttl_ms: int
    ) -> None:
        """Keep events (name, accept time in us, blob) for waits that look back."""
        args: list[Arg] = [self._clock.offset_ms, most, age_ms, ttl_ms]
        for event in events:
            args += event
        await self._call("remember", *args)

    async def recent(
        self, name: str, since_us: int, *, age_ms: int, after: bytes = b""
    ) -> list[bytes]:
        """A page of the kept events of a name, oldest first; an empty one is the last."""
        offset = self._clock.offset_ms
        return list(await self._call("recent", offset, age_ms, name, since_us, after))

    async def configure(
        self, version: int, functions: Iterable[Sequence[Arg]], *, most: int, told: bool = False
    ) -> list[str]:
        """Publish what the gates of functions allow: (fn, lane, limit 0, limit 1, interval in us, burst, shards), '' = none.

        After a change every parked key tries again, about `most` a call. Returns the functions that are not through: call again.
        `told`: every shard has been told before.
        """
        args = [value for function in functions for value in function]
        left = await self._call(
            "configure", self._clock.offset_ms, version, most, "1" if told else "", *args
        )
        return [fn.decode() for fn in left]

    async def permit(self, kind: str, gate: str, permit: str, *, word: Arg = "", home: int) -> None:
        """Deliver a message about a shared gate's permit: asked (g), granted (G), given back (h).

        `word` is what the gate allows, `home` the shard that the message comes from.
        """
        await self._call("permit", self._clock.offset_ms, kind, gate, permit, word, home)

    async def lease(
        self, worker: str, prefix: str, lanes: Sequence[str], *, want: int, lease_ms: int, suspects: int,
        max_bytes: int = 1_048_576,
    ) -> list[Leased]:  # fmt: skip
        """Lease up to `want` items of `lanes`, at most `suspects` of them suspects."""
        offset = self._clock.offset_ms
        reply = await self._call(
            "lease", offset, worker, prefix, lease_ms, want, max_bytes, suspects, *lanes
        )
        return [leased(item) for item in reply]

    def lease_command(
        self, worker: str, prefix: str, lanes: Sequence[str], *, want: int, lease_ms: int, max_bytes: int
    ) -> tuple[Script, list[Arg]]:  # fmt: skip
        """`lease` without suspects for a connection of the caller's: its script, and what goes behind `Loaded.calling`.

        `leased` reads the rows of its reply.
        """
        return self._scripts["lease"], [1, *self._root, 0, worker, prefix, lease_ms, want, max_bytes, 0, *lanes]  # fmt: skip

    def commit(
        self,
        run: str,
        step: str,
        token: str,
        dv: int,
        clause: Sequence[Arg],
        ops: Iterable[Arg] = (),
    ) -> Awaitable[list[bytes]]:
        """Send one commit: `clause` is its letter with up to three arguments, `ops` the flat list of operations.

        At most about 2,000 operations a commit (Lua's stack). The reply is [code, dv].
        """
        padded = (*clause, "", "", "")[:4]
        return self._call("commit", self._clock.offset_ms, run, step, token, dv, *padded, *ops)

    def record(self, records: Sequence[Arg]) -> Awaitable[list[bytes | None]]:
        """The hot form of a commit: step results, flat (run, step, token, name, record).

        For each dv, or None: then use `commit`. At most about 1,000 a call.
        """
        return self._call("record", *records)

    def returned(self, runs: Sequence[Arg]) -> Awaitable[list[int]]:
        """The hot form of a commit: functions returned, flat (run, token, output).

        For each 1, or 0: then use `commit`. At most about 1,000 a call.
        """
        return self._call("returned", self._clock.offset_ms, *runs)

    async def due(
        self, *, limit: int, horizon_ms: int, timeout_error: bytes, cancelled_error: bytes
    ) -> DueReply:
        """Let what is due happen, at most `limit` items."""
        reply = await self._call(
            "due", self._clock.offset_ms, limit, horizon_ms, timeout_error, cancelled_error
        )
        return due_reply(reply)

    async def close(self, windows: Sequence[str]) -> list[str]:
        """End windows that `due` found. The function number of each run created."""
        reply = await self._call("close", self._clock.offset_ms, *windows)
        return [number.decode() for number in reply]

    async def crons(self, numbers: Sequence[str]) -> tuple[int, list[dict[str, bytes] | Exception]]:
        """The time, and the cron state of each function or why it can't be read."""
        now, *rows = await self._call("crons", self._clock.offset_ms, *numbers)
        return int(now), [row if isinstance(row, Exception) else texts(row) for row in rows]

    async def tick(
        self,
        number: str,
        next_ms: int,
        before: Mapping[str, bytes],
        after: Mapping[str, bytes],
        records: Sequence[tuple[str, bytes]] = (),
        runs: Sequence[NewRun] = (),
        *,
        record_ttl_ms: int,
    ) -> int | None:
        """Let cron ticks of a function happen: how many runs begin; None, and nothing done, unless its state is `before`."""
        args: list[Arg] = [self._clock.offset_ms, number, next_ms, record_ttl_ms]
        args += pairs(before.items()) + pairs(after.items()) + pairs(records)
        args += run_args(runs, flow=True)
        written, started = await self._call("tick", *args)
        return int(started) if written else None

    async def renew(
        self, worker: str, items: Iterable[tuple[str, str]], *, alive_ms: int, lease_ms: int
    ) -> list[str]:
        """Heartbeat; returns the items whose lease was lost."""
        args: list[Arg] = [self._clock.offset_ms, worker, alive_ms, lease_ms]
        for item, token in items:
            args += (item, token)
        return [item.decode() for item in await self._call("renew", *args)]

    async def expired(self, limit: int) -> list[Expired]:
        """Leases past their time."""
        reply = await self._call("expired", self._clock.offset_ms, limit)
        return [expired(lease) for lease in reply]

    async def reclaim(self, items: Iterable[tuple[str, str, int, bytes]]) -> list[tuple[str, str]]:
        """Take expired leases away: (item, token, max_crashes, error payload) → (item, outcome)."""
        args: list[Arg] = [self._clock.offset_ms]
        for item in items:
            args += item
        return [
            (item.decode(), outcome.decode())
            for item, outcome in await self._call("reclaim", *args)
        ]

    async def started(self, run: str, step: str, token: str, what: bytes) -> bool:
        """A suspect names the step it is about to run; False when its lease is lost."""
        return bool(await self._call("started", run, step, token, what))

    async def awaited(self, names: Sequence[str]) -> list[list[str]]:
        """For each event name, the paths by which this shard's waits look for it."""
        return [[p.decode() for p in paths] for paths in await self._call("awaited", *names)]

    async def candidates(
        self, pages: Sequence[tuple[str, bytes, bytes]], *, limit: int = 500
    ) -> list[Candidates]:
        """Waits by (name, prefix, after): for each, up to `limit`."""
        args: list[Arg] = [limit]
        for page in pages:
            args += page
        found = await self._call("candidates", *args)
        return [Candidates([(m, p, e) for m, p, e in rows], bool(more)) for more, *rows in found]

    async def resolve(
        self,
        run: str,
        step: str,
        registered: str,
        status: str,
        value: bytes,
        *,
        early: bool = False,
    ) -> bool:
        """Deliver a result to a waiting step; False when it waits no more."""
        args = (run, step, registered, status, value, "1" if early else "")
        return bool(await self._call("resolve", self._clock.offset_ms, *args))

    async def cancel(
        self,
        run: str,
        *,
        error: bytes,
        grace_ms: int,
        tombstone: str = "",
        children: bool = False,
        event: str = "",
        child_event: str = "",
    ) -> str:
        """Cancel a run, with `children` also those it invoked; returns its status letter after the call, '' when unknown.

        That of an open window is cancelled with all its events. `event` is the event that asks for it: what became of that tells of the
        run. `child_event`, of a child: the event that starts it. Where a window took it and has others too, only it is taken out.
        """
        offset, told = self._clock.offset_ms, "1" if children else ""
        return bytes(
            await self._call(
                "cancel", offset, run, error, grace_ms, tombstone, told, event, child_event
            )
        ).decode()

    async def answered(self, run: str, entry: bytes) -> bool:
        """A look-back of a run's cancels, that stream entry, found none: whether that let the run go."""
        return bool(await self._call("answered", self._clock.offset_ms, run, entry))

    async def signal_reserve(
        self, hash_: str, run: str, step: str, *, expiry_ms: int, replace: str = ""
    ) -> tuple[bool, str, bytes | None]:
        """Claim a signal for a step: (taken?, holder, value held for it)."""
        r = await self._call(
            "signal_reserve", self._clock.offset_ms, hash_, run, step, expiry_ms, replace
        )
        return bool(r[0]), r[1].decode(), r[2] if len(r) > 2 else None

    async def signal_send(
        self, hash_: str, value: bytes, *, hold_ms: int = 0, stale: str = ""
    ) -> str:
        """The holder ("run:step") a signal is for, or '' when nobody waits (held for `hold_ms`)."""
        return bytes(
            await self._call("signal_send", self._clock.offset_ms, hash_, value, hold_ms, stale)
        ).decode()

    async def signal_free(self, hash_: str, holder: str) -> bool:
        """Drop a delivered signal's reservation."""
        return bool(await self._call("signal_free", hash_, holder))

    async def namespace(
        self, shards: int, schema: int, *, deadline: float | None = None
    ) -> tuple[int, int]:
        """Open the namespace (shard 0 only); returns the stored (shards, schema)."""
        stored = await self._call("namespace", shards, schema, deadline=deadline)
        return int(stored[0]), int(stored[1])

    async def register(
        self, started_ms: int, configs: Iterable[tuple[str, bytes]]
    ) -> tuple[int, list[tuple[str, str, bool]]]:
        """Publish functions (shard 0 only): registry version and (field, number, written?) of each."""
        args: list[Arg] = [started_ms]
        for field, config in configs:
            args += (field, config)
        version, rows = await self._call("register", *args)
        return int(version), [(f.decode(), str(int(n)), bool(w)) for f, n, w in rows]

    async def unregister(self, fields: Sequence[str]) -> list[str]:
        """Take functions out of the registry (shard 0 only); the fields of those that were in it."""
        _, *gone = await self._call("unregister", self._clock.offset_ms, *fields)
        return [field.decode() for field in gone]

    async def deny(self, run: str, number: str, outcome: str) -> bool:
        """Tell who waits for a run that it will never be; False when it is there."""
        return bool(await self._call("deny", self._clock.offset_ms, run, number, outcome))

    async def set_aside(self, group: str, entry: Arg, kept: bytes) -> None:
        """Keep an entry of the outbox, with what is wrong with it, apart from those that can be delivered."""
        await self._call("set_aside", group, entry, kept)

    async def watch(self, run: str, watcher: str, *, ttl_ms: int) -> str:
        """Ask to be told of a run's end; its status now, '' when unknown, "open" (gathering), or the outcome why it never will be."""
        return bytes(await self._call("watch", run, watcher, ttl_ms)).decode()

    async def sweep(self, before_ms: int, *, limit: int) -> int:
        """Remove runs that ended before `before_ms`."""
        return int(await self._call("sweep", before_ms, limit))

    async def forget_consumers(self, group: str, me: str, *, idle_ms: int) -> int:
        """Delete other consumers of this shard's streams that are silent for longer and owe nothing."""
        return int(await self._call("forget_consumers", group, me, idle_ms))


NAMES = (
    "ingest", "arrive", "fanout", "admit", "close", "plan", "lease", "commit", "record", "returned", "due", "renew",
    "expired", "reclaim", "started", "awaited", "candidates", "resolve", "cancel",
    "signal_reserve", "signal_send", "signal_free", "namespace", "register", "watch", "sweep",
    "forget_consumers", "remember", "recent", "configure", "permit", "tick", "answered",
    "unregister", "deny", "crons", "set_aside",
)  # fmt: skip
