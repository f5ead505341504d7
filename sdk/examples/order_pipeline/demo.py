"""The order pipeline on a real server, in real processes, to its end: `make demo`.

Kill -9 whatever it starts, or itself, and run it again: nothing changes but the time it takes.
"""

import argparse
import asyncio
import os
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from examples.order_pipeline import feed, webhooks
from examples.order_pipeline.app import client
from examples.order_pipeline.supervisor import Supervisor
from stepwell import Run
from stepwell.cli import output
from stepwell.cli.timeline import render

FOLDER = Path(".stepwell/demo")
DEADLINE = 180.0
_LOOK = 0.25
_PROGRESS = 2.0


async def main(console: Console, folder: Path, limit: int | None, pace: float) -> int:
    """Run the demo; 0 if every run ended as it should, else 1."""
    console.print("[bold]Stepwell: an order pipeline, fed by a file of webhooks[/]\n")
    found = webhooks.read(limit=limit)
    console.print(
        f"{len(found.events)} webhooks, {found.repeated} of them delivered twice; "
        f"{len(found.refused)} unusable lines refused before they are sent:"
    )
    for each in found.refused:
        console.print(f"  {each}", style="dim", markup=False)
    resumed = _prepare(folder)
    if resumed:
        console.print("\nThe last demo did not come to its end: going on with it.")
    console.print()
    loop = asyncio.get_running_loop()
    began = loop.time()

    def say(text: str) -> None:
        console.print(f"[dim]{loop.time() - began:6.1f} s[/]  {text}")

    async with Supervisor(folder, say) as processes:
        pids = ", ".join(f"{name} {pid}" for name, pid in processes.pids.items())
        say(f"try it: kill -9 any of [bold]{pids}[/] (their logs are in {folder}/)")
        os.environ["STEPWELL_REDIS_URL"] = processes.url  # the client looks when it connects
        async with client:
            good = await _feed_and_wait(found, pace, say)
            runs = await feed.details(client, await feed.all_runs(client))
        deaths = processes.deaths
    took = loop.time() - began
    good = _report(console, runs, webhooks.expected(found.events)) and good
    said = "as expected" if good else "NOT as expected"
    console.print(
        f"{len(runs)} runs of {len(found.events)} webhooks ended {said} in {took:.1f} s; "
        f"{deaths} process(es) died meanwhile.",
        style="bold green" if good else "bold red",
    )
    if good:
        (folder / "unfinished").unlink()
    return 0 if good else 1


def _prepare(folder: Path) -> bool:
    """Whether an unfinished demo is there to go on with; else the folder is made afresh."""
    mark = folder / "unfinished"
    if mark.exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.touch()
    return False


async def _feed_and_wait(found: webhooks.Webhooks, pace: float, say: Callable[[str], None]) -> bool:
    """Send everything and wait for every run to end; whether they did in time."""
    feeder = feed.Feed(client, pace)
    wanted = webhooks.expected(found.events).total()
    progress = asyncio.create_task(_progress(feeder, len(found.events), wanted, say))
    try:
        async with asyncio.timeout(DEADLINE):
            await feeder.send(found.events)
            while True:
                runs = await feed.all_runs(client)
                if len(runs) >= wanted and all(run.status.ended for run in runs):
                    return True
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        say(f"[red]not all runs ended within {DEADLINE:g} s[/]")
        return False
    finally:
        progress.cancel()


async def _progress(
    feeder: feed.Feed, events: int, wanted: int, say: Callable[[str], None]
) -> None:
    while True:
        await asyncio.sleep(_PROGRESS)
        counts = Counter(str(run.status) for run in await feed.all_runs(client))
        states = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        say(f"{feeder.sent}/{events} webhooks sent; of {wanted} runs {states or 'none yet'}")


def _report(console: Console, runs: list[Run], expected: webhooks.Expected) -> bool:
    """Print every function's runs beside what was expected, and one run whole; whether all is right."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.fn_id, str(run.status)].append(run)
    made = output.table(
        "FUNCTION", "STATUS", "RUNS", "EXPECTED", "STEPS", "FAILED TRIES", "MEDIAN", "LONGEST"
    )
    for key in sorted({*groups, *expected}):
        these = groups.get(key, [])
        right = len(these) == expected[key]
        times = [run.ended_at - run.started_at for run in these if run.ended_at and run.started_at]
        made.add_row(
            key[0],
            f"[{output.STYLES.get(key[1], '')}]{key[1]}[/]",
            str(len(these)),
            str(expected[key]) if right else f"[bold red]{expected[key]}[/]",
            str(sum(len(run.steps) for run in these)),
            str(sum(len(step.attempts) for run in these for step in run.steps)),
            output.span(sorted(times)[len(times) // 2]) if times else "",
            output.span(max(times)) if times else "",
        )
    console.print()
    console.print(made)
    _show_one(console, runs)
    return {key: len(these) for key, these in groups.items()} == dict(expected)


def _show_one(console: Console, runs: list[Run]) -> None:
    """The run with the most to tell: one that had to try again, and was shipped."""
    orders = [run for run in runs if run.fn_id == "fulfil-order"]
    if orders:
        best = max(
            orders, key=lambda run: (sum(len(s.attempts) for s in run.steps), len(run.steps))
        )
        console.print("One of them, as `stepwell runs show` tells it:\n", style="bold")
        console.print(render(best))
        console.print()


def run() -> int:
    """The demo from the command line's arguments."""
    parser = argparse.ArgumentParser(prog="order_pipeline.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the state is kept")
    parser.add_argument(
        "--limit", type=int, help="only that many orders, with what belongs to them"
    )
    parser.add_argument("--pace", type=float, default=0.04, help="seconds between two webhooks")
    given = parser.parse_args()
    return asyncio.run(main(output.console(), given.folder, given.limit, given.pace))


if __name__ == "__main__":
    sys.exit(run())
