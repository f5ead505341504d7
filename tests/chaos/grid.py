"""Every call is a place to die: scenarios by victims by calls, before or after, killed or only cut off."""

import asyncio
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stepwell_engine.embedded import EmbeddedServer
from tests.chaos.arena import ordeal
from tests.chaos.processes import Kind
from tests.chaos.proxy import Strike
from tests.chaos.scenarios import SCENARIOS

CALLS: Final[dict[Kind, int]] = {"worker": 26, "coordinator": 46}
"""A little more than any scenario makes: a strike that comes too late is an undisturbed run."""

AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One ordeal. `str` of it is what reproduces it: `python -m tests.chaos.run --case "..."`."""

    scenario: str
    victim: Kind
    strike: Strike

    def __str__(self) -> str:
        how = "kill" if self.strike.kill else "cut"
        return f"{self.scenario} {self.victim} {self.strike.n} {self.strike.when} {how}"

    @classmethod
    def parse(cls, text: str) -> "Case":
        """What `str` made, back.

        >>> str(Case.parse("steps worker 7 after kill"))
        'steps worker 7 after kill'
        """
        scenario, victim, n, when, how = text.split()
        assert scenario in SCENARIOS, f"scenarios are {', '.join(SCENARIOS)}"
        assert victim in ("worker", "coordinator")
        assert when in ("before", "after")
        return cls(
            scenario,
            "worker" if victim == "worker" else "coordinator",
            Strike(int(n), "before" if when == "before" else "after", how == "kill"),
        )


def every_case() -> list[Case]:
    """The whole grid."""
    return [
        Case(scenario, victim, Strike(n, when, kill))
        for scenario in SCENARIOS
        for victim, most in CALLS.items()
        for n in range(1, most + 1)
        for when in ("before", "after")
        for kill in (True, False)
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


async def run_cases(
    cases: Sequence[Case], *, at_once: int = AT_ONCE, say: Callable[[str], object] = print
) -> Tally:
    """Run cases, some at a time; each failure with all there is to know."""
    tally = Tally()
    queue = list(reversed(cases))
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer() as server:

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
