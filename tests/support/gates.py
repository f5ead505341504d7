"""Shards with gated functions to drive by hand, and what must be true of them whatever happens.

The oracle looks at leases and runs only, never at the scripts' own account of slots: a lease is live while it is in `lease`,
a run holds its slots from its first lease to its end.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stepwell.clock import VirtualClock
from stepwell.serde import pack
from stepwell_engine.audit_gates import gates_of
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.transitions import Arg, Leased, NewRun
from tests.support.audit import assert_sound
from tests.support.shard import Shard

SHARED = "shared0000000000"


def gate(kind: str, place: str, name: str) -> str:
    """One gate of a queue key."""
    return f"{kind}{place}{name:_<16}"


@dataclass
class Config:
    """What one function's gates allow; None = nothing said.

    `given`: places of which events give the limit ("-" is the throttle, with that `period_us`). What is said of those is what was before.
    """

    limits: list[int | None] = field(default_factory=lambda: [2, 2])
    interval_us: int | None = None
    burst: int = 1
    given: set[str] = field(default_factory=set[str])
    period_us: int = 0


class Live(NamedTuple):
    """A run as created: where, of which function, in which queue."""

    shard: int
    fn: str
    key: str


def _earned(rates: list[tuple[float, int]], first: float, last: float) -> float:
    """How many starts a throttle's intervals gave between two moments (ms); each moment may have been a little off."""
    ends = [since for since, _ in rates[1:]] + [last]
    return sum(
        max(0.0, min(end, last) - max(since, first) + 2) * 1000 / interval
        for (since, interval), end in zip(rates, ends, strict=True)
    )


class World:
    """`shards` shards of one server; function `n` lives on shard `(n - 1) % shards`."""

    def __init__(self, server: Server, shards: int, functions: int) -> None:
        clock = VirtualClock()
        self.clock = clock
        self.server = server
        self.shards = [Shard(server, n, clock) for n in range(shards)]
        self.configs = {str(n + 1): Config() for n in range(functions)}
        self.version = self.known = 1
        self.runs: dict[str, Live] = {}
        self.held: list[tuple[int, Leased]] = []
        self.mail: list[tuple[int, dict[str, bytes]]] = []
        self.old: list[tuple[int, dict[str, bytes]]] = []
        self.begun: set[str] = set()
        self.starts: dict[str, list[tuple[int, int]]] = {}
        self.back_ms = 0
        self.bound: dict[str, int] = {}
        self.given: dict[tuple[int, str], tuple[int, int]] = {}
        """(shard, gate) → when the newest event was accepted, and its limit"""
        self.rates: dict[str, list[tuple[float, int]]] = {}
        """throttle → since when it had which interval"""
        self.us = 10**15
        self.shared = [(fn, gate("C", "0", name)) for fn in "34" for name in (SHARED, SHARED[::-1])]
        """gates of functions whose limits shards may be told of one after another"""

    def shard_of(self, fn: str) -> Shard:
        return self.shards[(int(fn) - 1) % len(self.shards)]

    # --- what may happen ---

    async def publish(
        self,
        *,
        most: int = 500,
        times: int = 1_000,
        version: int = 0,
        fns: Collection[str] = "1234",
    ) -> None:
        """A coordinator tells the shards of the configs; it may die after some `times`, or when it has told those of `fns`."""
        whole = times > 1 and not version and len(fns) == len(self.configs)
        if not version and len(fns) == len(self.configs):
            self.known = self.version
        for told in (False, True)[: len(self.shards) if whole else 1]:
            for shard in self.shards:
                for _ in range(times):
                    rows = [self._row(fn) for fn in fns if self.shard_of(fn) is shard]
                    args = version or self.version, rows
                    if not await shard.t.configure(*args, most=most, told=told):
                        break
        if whole and "0" not in self.configs["3"].given:
            self.bound.clear()

    def _row(self, fn: str) -> tuple[Arg, ...]:
        config = self.configs[fn]
        limits = ["" if each is None else each for each in config.limits]
        said: list[Arg] = ["*" if str(i) in config.given else each for i, each in enumerate(limits)]
        rate: tuple[Arg, Arg] = ("", "")
        if "-" in config.given:
            rate = (f"*{config.period_us}", config.burst)
        elif config.interval_us is not None:
            rate = (config.interval_us, config.burst)
        return (fn, "app", *said, *rate, len(self.shards))

    def limit(self, fn: str, part: str) -> int | None:
        """What a gate of the function's queue keys allows now."""
        if part[0] == "s":
            return 1
        config = self.configs[fn]
        last = config.limits[int(part[1])]
        if part[1] not in config.given:
            return last
        given = self.given.get((self.shard_of(fn).number, part[2:]))
        return given[1] if given else last or 1

    def interval(self, fn: str, gate: str) -> int | None:
        config = self.configs[fn]
        if "-" not in config.given:
            return config.interval_us
        given = self.given.get((self.shard_of(fn).number, gate))
        return -(-config.period_us // given[1]) if given else config.interval_us or config.period_us

    async def create(
        self, fn: str, key: str, start_ms: int = 0, limit: int | None = None, late: int = 0
    ) -> str:
        """`limit`: what its event gives those of its gates that ask for it; it was accepted before `late` others that came already."""
        shard, now = self.shard_of(fn), self.clock.now_ms()
        run = shard.new_id()
        self.us += 1
        # As admission.py asks for runs that hold a slot from their first lease to their end.
        flow: dict[str, Any] = (
            {"f": ["fx", "g"]} if any(g.kind in "rRs" for g in gates_of(key)) else {}
        )
        parts = key.split(",") if limit is not None else []
        ids = [
            part[2:] for part in parts if part[1] in self.configs[fn].given and part[0] not in "sw"
        ]
        if ids:
            flow["lm"] = " ".join([str(self.us - late), *(f"{each}={limit}" for each in ids)])
        asked = pack(flow) if flow else b""
        new = NewRun(run, fn, "app", b"E" * 26 + b"blob", start_ms, now, False, "", key, asked)
        throttles = [each.id for each in gates_of(key) if each.kind == "t" and each.id in ids]
        before = {each: self.interval(fn, each) for each in throttles}
        early = self.elapsed()
        await shard.t.admit("stepwell", [], [], [new], record_ttl_ms=60_000)
        for each in ids:
            self._gives(fn, each, limit or 0, self.us - late)
        for each in throttles:
            after = self.interval(fn, each)
            if after and after != before[each]:
                self.rates.setdefault(each, [(0, before[each] or after)]).append((early, after))
        self.runs[run] = Live(shard.number, fn, key)
        return run

    def _gives(self, fn: str, gate: str, limit: int, us: int) -> None:
        place = self.shard_of(fn).number, gate
        if place not in self.given or self.given[place][0] <= us:
            self.given[place] = us, limit
        self.bind()

    def bind(self) -> None:
        """Shards may be told of a shared gate's limit one after another, and events give each its own: then the highest may be in use."""
        if len(self.shards) > 1:
            for fn, part in self.shared:
                limit = self.limit(fn, part) or 0
                self.bound[part[2:]] = max(self.bound.get(part[2:], 0), limit)

    async def lease(self, number: int, want: int, worker: str = "w1", suspects: int = 0) -> int:
        shard, early = self.shards[number], self.elapsed()
        found = await shard.lease(want, worker=worker, suspects=suspects)
        late = self.elapsed()
        counts = await self.counts()
        for item in found:
            self.held.append((number, item))
            start = item.run_id not in self.begun
            if start:
                self.begun.add(item.run_id)
                self._started(item.run_id, early, late)
            if not item.suspect:
                self._within(item.run_id, "crsCR" if start else "cC", counts)
        return len(found)

    def _within(self, run: str, kinds: str, counts: Counter[str]) -> None:
        """What goes on now passes its gates; what held its slot when a limit was lowered keeps it."""
        live = self.runs[run]
        for part in live.key.split(","):
            if part[0] in kinds and (limit := self.limit(live.fn, part)):
                most = max(limit, self.bound.get(part[2:], 0))
                assert counts[part[2:]] <= most, f"{part}: {counts[part[2:]]} hold {most} slots"

    def _started(self, run: str, early: int, late: int) -> None:
        live = self.runs[run]
        burst = self.configs[live.fn].burst
        for each in gates_of(live.key):
            interval = self.interval(live.fn, each.id) if each.kind == "t" else None
            if interval is None:
                continue
            starts = self.starts.setdefault(each.id, [])
            starts.append((early, late))
            rates = self.rates.get(each.id, [(0, interval)])
            for i, (first, _) in enumerate(starts):
                most = burst + int(_earned(rates, first, late))
                assert len(starts) - i <= most, f"{len(starts) - i} starts in {late - first} ms"

    async def collect(self) -> int:
        """Take what the shards owe each other out of their outboxes; how much there is to deliver."""
        for shard in self.shards:
            for sid, fields in await shard.entries("outbox"):
                await shard.do("XDEL", "outbox", sid)
                if fields["k"] in (b"g", b"G", b"h"):
                    self.mail.append((shard.number, fields))
        return len(self.mail)

    async def deliver(self, pick: int, *, again: bool) -> None:
        """Deliver any message; `again`: it will be delivered once more, some time."""
        await self.collect()
        if not self.mail:
            return
        letter = self.mail.pop(pick % len(self.mail))
        if again:
            self.old.append(letter)
        await self._post(letter)

    async def deliver_old(self, pick: int) -> None:
        if self.old:
            await self._post(self.old[pick % len(self.old)])

    async def _post(self, letter: tuple[int, dict[str, bytes]]) -> None:
        sender, f = letter
        await self.shards[int(f["a"])].t.permit(
            f["k"].decode(), f["b"].decode(), f["c"].decode(), word=f["d"], home=sender
        )

    def jump(self, ms: int) -> None:
        """The servers' clock is set; back is no time at all."""
        self.clock.offset_ms += ms
        if ms < 0:
            self.back_ms -= ms

    def elapsed(self) -> int:
        return self.clock.now_ms() + self.back_ms

    # --- what must be true ---

    async def counts(self) -> Counter[str]:
        """Holders of each gate, by the leases, the suspects and the runs themselves."""
        found = Counter[str]()
        for shard in self.shards:
            for item in await self._at_work(shard):
                found.update(g.id for g in gates_of(self.runs[item[:26]].key) if g.kind in "cC")
        for run in await self.live(b"r", b"x"):
            found.update(g.id for g in gates_of(self.runs[run].key) if g.kind in "rRs")
        return found

    async def _at_work(self, shard: Shard) -> list[str]:
        leased = await shard.do("ZRANGE", "leases", 0, -1)
        suspects = await shard.do("ZRANGE", "suspects", 0, -1, params=("app",))
        return [item.decode() for item in (*leased, *suspects)]

    async def live(self, *statuses: bytes) -> list[str]:
        names = list(self.runs)
        calls = [self.shards[self.runs[run].shard].field(run, "st") for run in names]
        return [run for run, call in zip(names, calls, strict=True) if await call in statuses]

    async def settle(self) -> None:
        """All that can happen without anybody's code happens; then whatever still waits has a reason."""
        letters = leased = 0
        early = await self.collect()
        for _ in range(300):
            us = await self._now_us()
            await self.publish()
            moved = 0
            while await self.collect():
                await self.deliver(-1, again=False)
                moved += 1
            letters += moved
            for shard in self.shards:
                moved += (await shard.due()).handled
                found = await self.lease(shard.number, 100, suspects=100)
                moved, leased = moved + found, leased + found
            if not moved and not await self.collect():
                self.bound.clear()
                if "0" in self.configs["3"].given:
                    self.bind()
                await self._all_excused(us)
                queues = len({(live.fn, live.key) for live in self.runs.values()})
                # Each that was under way may be answered, and the answer given back.
                most = 4 * early + 10 * (queues + leased)
                assert letters <= most, (
                    f"{letters} messages, {early} of them early, {leased} leases"
                )
                return
        raise AssertionError("it never comes to rest")

    async def _now_us(self) -> int:
        seconds, micros = await self.server.call("x", "TIME")
        return int(seconds) * 1_000_000 + int(micros) + self.clock.offset_ms * 1000

    async def _all_excused(self, now_us: int) -> None:
        counts, waiting = await self.counts(), set[tuple[str, str, bool]]()
        for fn, key in {(live.fn, live.key) for live in self.runs.values()}:
            for kind in ("resumes", "starts"):
                if await self.shard_of(fn).do("ZCARD", kind, params=(fn, key)):
                    waiting.add((fn, key, kind == "starts"))
        # Who waits for a slot may keep one of another gate: that excuses others once he is excused himself.
        kept, known = await self._kept(), -1
        while len(waiting) != known:
            known = len(waiting)
            for queue in list(waiting):
                if await self._shut(*queue, counts, now_us):
                    waiting.discard(queue)
                    counts.update(kept.pop(queue[:2], ()))
        assert not waiting, f"wait for nothing: {waiting}"

    async def _kept(self) -> dict[tuple[str, str], list[str]]:
        """Of which gates a permit is kept for a queue (function, key)."""
        found: dict[tuple[str, str], list[str]] = {}
        names = {each.id for live in self.runs.values() for each in gates_of(live.key)}
        for shard in self.shards:
            for name in names:
                for member in await shard.do("ZRANGE", "kept", 0, -1, params=(name,)):
                    fn, _, key = member.decode().partition(":")
                    found.setdefault((fn, key), []).append(name)
        return found

    async def _shut(
        self, fn: str, key: str, start: bool, counts: Counter[str], now_us: int
    ) -> bool:
        config = self.configs[fn]
        for part in key.split(","):
            kind, name = part[0], part[2:]
            if kind in "cC" or (start and kind in "rRs"):
                limit = self.limit(fn, part)
                if limit and counts[name] >= limit:
                    return True
            elif start and kind == "t" and (interval := self.interval(fn, name)) is not None:
                raw = await self.shard_of(fn).do("GET", "arrival", params=(name,))
                tat = min(int(raw or 0), now_us + config.burst * interval)
                if now_us + (config.burst - 1) * interval < tat:
                    return True
        return False

    async def sound(self) -> None:
        await assert_sound(self.server, shards=len(self.shards))

    async def drain(self, tick_ms: int) -> None:
        """Everybody does his work: every run ends, and nothing is left of the gates."""
        for _ in range(400):
            await self.settle()
            live = await self.live(b"q", b"r", b"x")
            for number, item in self.held:
                await self.shards[number].commit(item, "F", "c", b"", b"")
            self.held.clear()
            if not live:
                break
            self.clock.offset_ms += tick_ms
            for shard in self.shards:
                await shard.reclaim()
            await self.sound()
        assert not await self.live(b"q", b"r", b"x"), "a run never ends"
        await self.settle()
        await self.sound()
        for shard in self.shards:
            for kind in ("cs:", "pk:", "pd:", "gp:", "gr:", "ga:", "rk:", "rf:", "sus:"):
                left = await self.server.call(
                    shard.keys.root, "KEYS", f"*:{shard.number}}}:{kind}*"
                )
                assert left == [], left
