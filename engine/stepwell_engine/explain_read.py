"""Reads what explain.py tells of: a run, where its items are queued, who holds what they wait for, whom it invoked."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from stepwell.errors import RunNotFoundError
from stepwell.ids import function_shard, run_id, ulid_time_chars
from stepwell.records import EventOutcome, Explanation, Run, StepRecord, StepStatus, run_status
from stepwell.serde.values import unpack
from stepwell_engine import luapack, views
from stepwell_engine.directory import Directory, Registered
from stepwell_engine.explain import at, count, subject, tell, text_of
from stepwell_engine.explain_facts import Facts, Gate, Holder, Place, Service
from stepwell_engine.limits.concurrency import Concurrency
from stepwell_engine.limits.event_keys import EventKeys, Key
from stepwell_engine.limits.limit import read_said
from stepwell_engine.limits.throttle import Throttle, interval_us
from stepwell_engine.loop import time_ms
from stepwell_engine.store.keys import Keys
from stepwell_engine.store.store import Store
from stepwell_engine.watcher import OPEN, no_run

_DEEPEST: Final = 8
"""Invokes of invokes that are followed."""

_STEPS: Final = 20  # of one run, looked at in detail
_HOLDERS: Final = 20
_LEASES: Final = 200  # looked at to find out who serves an app
_NEVER: Final = b"!"

_WINDOWS: Final = {b"b": "batch", b"c": "debounce", b"": "debounce"}


async def explain(store: Store, directory: Directory, run: str, *, depth: int = 0) -> Explanation:
    """Why a run is not running now. Raises RunNotFoundError, ServerError."""
    return await _Look(store, directory, depth).explain(run)


class _Look:
    """One look at one run. What it reads is not one snapshot: a run that moves meanwhile is told of as half moved."""

    def __init__(self, store: Store, directory: Directory, depth: int) -> None:
        self._store = store
        self._call = store.server.call
        self._directory = directory
        self._depth = depth
        self._now = 0
        self._keys: Keys
        self._fields: Mapping[bytes, bytes] = {}
        self._function: Registered | None = None
        self._config: Mapping[str, Any] = {}
        self._removed = False

    async def explain(self, run: str) -> Explanation:
        self._keys = keys = self._store.of_run(run).keys
        key = keys.run(run)
        flat, stamp = await asyncio.gather(
            self._call(key, "HGETALL", key), self._call(keys.root, "TIME")
        )
        self._now = time_ms(stamp) + self._store.clock.offset_ms
        self._fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if b"st" not in self._fields:
            return await self._unborn(run)
        await self._learn(self._fields[b"f"].decode())
        fn = self._function.fn_id if self._function else ""
        return tell(await self._facts(views.run(run, fn, self._fields)))

    async def _learn(self, number: str) -> None:
        """The function, and its config as registered last."""
        self._function = await self._directory.numbered(number)
        if self._function is None:
            return
        key = self._store.keys(0).build("functions")
        field = f"{self._function.app_id}\0{self._function.fn_id}"
        raw: bytes | None = await self._call(key, "HGET", key, field)
        if raw is not None:
            _, _, config, *removed = luapack.read(raw)
            self._config, self._removed = unpack(config), bool(removed)

    # --- the run ---

    async def _facts(self, run: Run) -> Facts:
        open_ = [step for step in run.steps if step.ended_at is None][:_STEPS]
        due = await self._due(run, open_)
        root = self._fields.get(b"rs")
        items = {"": run.id} if root == b"q" else {}
        items |= {
            s.key: f"{run.id}:{s.key}"
            for s in open_
            if s.status is StepStatus.QUEUED and s.key not in due
        }
        places = await asyncio.gather(*(self._place(run, item) for item in items.values()))
        invokes = [step for step in open_ if step.op == "invoke"]
        children = await asyncio.gather(*(self._child(step) for step in invokes))
        alive, lease = await self._worker(run) if root == b"l" else (True, None)
        retries: Mapping[str, Any] = self._config.get("retries") or {}
        return Facts(
            run=run,
            now_ms=self._now,
            attempts=int(retries.get("attempts") or 1),
            max_crashes=int(self._config.get("max_crashes") or 3),
            since_ms=self._since(run),
            worker_alive=alive,
            lease_ms=lease,
            failed=self._failed(),
            places=dict(zip(items, places, strict=True)),
            due=due,
            children={s.key: child for s, child in zip(invokes, children, strict=True)},
            never=frozenset(s.key for s in open_ if s.op == "wait" and self._hopeless(s.key)),
            held=b"hd" in self._fields and float(self._fields.get(b"qa", 0)) <= self._now,
        )

    async def _due(self, run: Run, steps: list[StepRecord]) -> dict[str, float]:
        names = ["", "!", "<", ">", *(step.key for step in steps)]
        members = [f"{run.id}:{name}" if name else run.id for name in names]
        key = self._keys.build("due")
        found: list[bytes | None] = await self._call(key, "ZMSCORE", key, *members)
        return {n: float(score) for n, score in zip(names, found, strict=True) if score is not None}

    async def _worker(self, run: Run) -> tuple[bool, float | None]:
        workers, leases = self._keys.build("workers"), self._keys.build("leases")
        word, lease = await asyncio.gather(
            self._call(workers, "ZSCORE", workers, run.worker or ""),
            self._call(leases, "ZSCORE", leases, run.id),
        )
        return float(word or 0) > self._now, None if lease is None else float(lease)

    def _since(self, run: Run) -> float | None:
        stays = [entry.started_at for entry in run.entries if entry.step_key is None]
        return stays[-1].timestamp() * 1000 if stays else None

    def _failed(self) -> dict[str, int]:
        """Failed attempts by step key, '' for the body."""
        return {
            name[2:].decode(): int(blob[:2])
            for name, blob in self._fields.items()
            if name[:2] == b"t:" and blob[:2].isdigit()
        }

    def _hopeless(self, step: str) -> bool:
        record = luapack.read(self._fields[b"p:" + step.encode()])
        return len(record) > 6 and record[6] == _NEVER

    # --- a queued item ---

    async def _place(self, run: Run, item: str) -> Place:
        keys, call = self._keys, self._call
        fn, queue = self._fields[b"f"].decode(), self._fields.get(b"k", b"").decode()
        resumes, starts = keys.build("resumes", fn, queue), keys.build("starts", fn, queue)
        suspects, parks = keys.build("suspects", run.app_id), keys.build("parks", fn)
        suspect, ahead, resume, start, parked, service = await asyncio.gather(
            call(keys.root, "ZSCORE", suspects, item),
            call(keys.root, "ZCARD", resumes),
            call(keys.root, "ZRANK", resumes, item),
            call(keys.root, "ZRANK", starts, item),
            call(keys.root, "HGET", parks, queue),
            self._service(run.app_id),
        )
        if suspect is not None:
            return Place(suspect=True, service=service)
        state = (parked or b"").decode()
        # Where only starts are held back, resumes go on.
        held = state[:1] == "w" or (state[:1] == "s" and start is not None)
        before = int(resume) if resume is not None else int(start or 0)
        if resume is None and state[:1] != "s":
            before += int(ahead)
        texts = queue.split(",") if queue else []
        labels = [label for text in texts if (label := self._key_of(text))]
        if not held:
            named = " and ".join(dict.fromkeys(f"{key} = {value}" for key, value in labels))
            return Place(before=before, key=named, service=service)
        gate = next((text for text in texts if text[2:] == state[1:]), "")
        return Place(before=before, gate=await self._gate(gate), service=service)

    def _key_of(self, text: str) -> tuple[str, str] | None:
        """The expression of a gate and its value for this run, as text; None where there is none, or a deploy changed it since."""
        kind, place, identity = text[:1], text[1:2], text[2:]
        event = views.trigger_event(self._fields)
        if event is None or self._function is None:
            return None
        keys = EventKeys(self._function.number, event.to_dict, self._now)
        key = self._configured(kind, place)
        if key is None or key.expression is None or keys.identity(key) != identity:
            return None
        value = keys.value(key.expression)
        return key.expression.text, "null" if value is None else text_of(value)

    def _configured(self, kind: str, place: str) -> Key | None:
        """The key of a gate as the function's config has it."""
        if kind == "t":
            throttle = Throttle.read(self._config)
            return throttle.key if throttle else None
        if kind and kind in "cCrR":
            entries = Concurrency.read(self._config)
            return entries[int(place)].key if int(place) < len(entries) else None
        return None

    async def _gate(self, text: str) -> Gate:
        kind, place, identity = text[:1] or "c", text[1:2], text[2:]
        key, value = self._key_of(text) or ("", "")
        flow_key = self._keys.build("flow", self._fields[b"f"].decode())
        flat: list[bytes] = await self._call(flow_key, "HGETALL", flow_key)
        flow = dict(zip(flat[::2], flat[1::2], strict=True))
        if kind == "t":
            interval, burst = await self._interval(identity, flow), int(flow.get(b"b") or 1)
            arrival = self._keys.build("arrival", identity)
            now_us = self._now * 1000
            tat = min(
                float(await self._call(arrival, "GET", arrival) or 0), now_us + burst * interval
            )
            ready = max(tat, now_us) - (burst - 1) * interval
            return Gate(kind=kind, key=key, value=value, interval_us=interval, ready_us=ready)
        said = read_said("1" if kind == "s" else flow.get(place.encode(), b"").decode())
        limit = said.fixed
        if limit is None:
            limit = await self._given(identity)
            limit = said.last or 1 if limit is None else limit
        holders = await self._holders(identity, shared=kind in "CR")
        kept = await self._kept(identity) if kind in "CR" else ()
        return Gate(kind=kind, key=key, value=value, limit=limit, holders=holders, kept=kept)

    async def _interval(self, gate: str, flow: Mapping[bytes, bytes]) -> int:
        said = read_said(flow.get(b"t", b"").decode())
        if said.fixed is not None:
            return said.fixed
        limit = await self._given(gate)
        return interval_us(said.period_us, limit) if limit else said.last or said.period_us

    async def _given(self, gate: str) -> int | None:
        """The limit that the newest event gave a gate."""
        key = self._keys.build("limit", gate)
        text: bytes | None = await self._call(key, "GET", key)
        # Not used for long: what its run brought.
        brought = dict(row.split(b"=") for row in self._fields.get(b"lm", b"").split()[1:])
        found = text.split()[1] if text else brought.get(gate.encode())
        return None if found is None else int(found)

    async def _holders(self, gate: str, *, shared: bool) -> list[Holder]:
        """Who has the slots, longest first. Of a shared gate each shard knows its own; permits stand for those of others."""
        shards = [s.keys for s in self._store.shards] if shared else [self._keys]
        rows: list[list[bytes]] = await asyncio.gather(
            *(
                self._call(k.root, "ZRANGE", k.build("slots", gate), 0, _HOLDERS - 1, "WITHSCORES")
                for k in shards
            )
        )
        pairs = [
            (member.decode(), float(ms))
            for row in rows
            for member, ms in zip(row[::2], row[1::2], strict=True)
            if not member.startswith(b"@")
        ]
        found = await asyncio.gather(*(self._holder(*pair) for pair in pairs))
        return sorted(found, key=lambda holder: holder.since_ms)

    async def _kept(self, gate: str) -> list[str]:
        """Functions that have a slot of a shared gate and wait for another gate, one for each slot."""
        rows: list[list[bytes]] = await asyncio.gather(
            *(
                self._call(s.keys.root, "ZRANGE", s.keys.build("kept", gate), 0, _HOLDERS - 1)
                for s in self._store.shards
            )
        )
        numbers = [member.decode().partition(":")[0] for row in rows for member in row]
        found = [await self._directory.numbered(number) for number in numbers]
        return [f"{f.app_id}/{f.fn_id}" if f else "an unknown function" for f in found]

    async def _holder(self, item: str, since_ms: float) -> Holder:
        run = item[:26]
        key = self._store.of_run(run).keys.run(run)
        status, place, number = await self._call(key, "HMGET", key, "st", "rs", "f")
        function = await self._directory.numbered((number or b"").decode())
        name = f"{function.app_id}/{function.fn_id}" if function else "an unknown function"
        known = run_status(status.decode(), (place or b"").decode()) if status else None
        return Holder(run, name, since_ms, known)

    async def _service(self, app: str) -> Service:
        """Who could take an item of the app. Workers don't say whom they serve: those seen with items of it do."""
        keys, call = self._keys, self._call
        living, bell = await asyncio.gather(
            call(keys.root, "ZRANGEBYSCORE", keys.build("workers"), f"({self._now}", "+inf"),
            call(keys.root, "LLEN", keys.build("bell", app)),
        )
        alive = {worker.decode() for worker in living}
        busy: Counter[str] = Counter()
        for shard in self._store.shards:
            busy.update(w for w in await self._leased(shard.keys, app) if w in alive)
        served = dict(busy.most_common())
        return Service(alive=len(alive), busy=served, rung=bool(bell), removed=self._removed)

    async def _leased(self, keys: Keys, app: str) -> list[str]:
        items: list[bytes] = await self._call(
            keys.root, "ZRANGE", keys.build("leases"), 0, _LEASES - 1
        )
        names = [item.decode() for item in items]
        rows: list[list[bytes | None]] = await asyncio.gather(
            *(
                self._call(keys.root, "HMGET", keys.run(name[:26]), "a", f"w{name[26:]}")
                for name in names
            )
        )
        return [worker.decode() for lane, worker in rows if worker and lane == app.encode()]

    # --- a child ---

    async def _child(self, step: StepRecord) -> Explanation | str:
        if self._depth >= _DEEPEST:
            return "and so on"
        details = step.details
        app, fn = str(details["app"]), str(details["fn"])
        ms = int(luapack.read(self._fields[b"p:" + step.key.encode()])[2]) // 1000
        event = ulid_time_chars(ms) + str(details["entropy"])
        shard = function_shard(app, fn, len(self._store.shards))
        child = run_id(ms, event, app, fn, shard)
        try:
            return await explain(self._store, self._directory, child, depth=self._depth + 1)
        except RunNotFoundError:
            function = await self._directory.find(app, fn)
            if function is None or function.removed:
                return "no worker has registered that function"
            return ""

    # --- a run that is not there ---

    async def _unborn(self, run: str) -> Explanation:
        """A run that an open window gathers events for, or one that flow control turned away."""
        key = self._keys.build("outcome", run)
        flat: list[bytes] = await self._call(key, "HGETALL", key)
        if not flat:
            raise no_run(run)
        word, *window = flat[1].decode().split(" ")
        if word == OPEN:
            # Of an invoke whose event stands in it, its run's id follows.
            found = await self._window(
                window[-1] if window[1:] else run, flat[0].decode(), window[0]
            )
            if found is not None:
                return found
            if self._depth >= _DEEPEST:
                raise no_run(run)
            # It closed just now.
            return await explain(self._store, self._directory, run, depth=self._depth + 1)
        return await self._instead(run, flat[0].decode(), flat[1].decode())

    async def _instead(self, run: str, number: str, outcome: str) -> Explanation:
        await self._learn(number)
        word, _, other = outcome.partition(" ")
        if word in ("debounced", "batched") and self._depth < _DEEPEST:
            return await explain(self._store, self._directory, other, depth=self._depth + 1)
        app, fn = self._function[:2] if self._function else ("", "")
        why = EventOutcome(app_id=app, fn_id=fn, outcome=word, run_id=other).reason
        return Explanation(
            run_id=run,
            function_id=f"{app}-{fn}",
            status=None,
            reason="not_started",
            text=f"{subject(run, app, fn)} was not started: {why}.",
            runs=(other,) if other else (),
        )

    async def _window(self, run: str, fn: str, id_: str) -> Explanation | None:
        key, due = self._keys.build("window", id_), self._keys.build("due")
        (mine, kind, n), end = await asyncio.gather(
            self._call(key, "HMGET", key, "r", "all", "n"),
            self._call(due, "ZSCORE", due, f"~{fn}:{id_}"),
        )
        if mine != run.encode() or end is None:
            return None
        end = float(end)
        await self._learn(fn)
        app, fn = self._function[:2] if self._function else ("", "")
        what, when = _WINDOWS.get(kind, "window"), at(end, self._now)
        so_far = f"its {what} has {count(int(n), 'event')} so far and ends at {when}"
        rest = ", or when it is full" if what == "batch" else " unless another comes"
        return Explanation(
            run_id=run,
            function_id=f"{app}-{fn}",
            status=None,
            reason="gathering",
            text=f"{subject(run, app, fn)} is not there yet: {so_far}{rest}.",
            until=views.moment(end),
        )
