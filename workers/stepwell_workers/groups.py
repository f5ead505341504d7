"""Branches of steps: `parallel` waits for all, `race` for the first."""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stepwell.serde.values import unpack
from stepwell_workers import memo
from stepwell_workers.ledger import BRANCH, Branch
from stepwell_workers.memo import StepName

if TYPE_CHECKING:
    from stepwell_workers.steps import Steps

RACE = "stepwell race"


async def _call(branch: Callable[[], Any]) -> Any:
    value = branch()
    return await value if inspect.isawaitable(value) else value


async def parallel(callables: Sequence[Callable[[], Any]]) -> tuple[Any, ...]:
    """All results in order; the first error in order is raised once every branch has finished."""
    tasks = [asyncio.ensure_future(_call(branch)) for branch in callables]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return tuple(results)


async def race(steps: "Steps", callables: Sequence[Callable[[], Any]]) -> Any:
    """The first result. Who won is recorded before it is returned, with the losers' pendings removed in the same write.

    On replay every branch is entered again (so that repeated step ids keep their counters), but only the winner may go on.
    """
    name, record = steps.begin(RACE)
    winner = None if record is None else memo.read(record, RACE, unpack)
    branches = [Branch() for _ in callables]
    tasks: list[asyncio.Task[Any]] = []
    for index, (branch, call) in enumerate(zip(branches, callables, strict=True)):
        branch.lost = winner is not None and index != winner
        mark = BRANCH.set(branch)
        tasks.append(asyncio.create_task(_call(call)))
        BRANCH.reset(mark)
    try:
        if winner is None:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            winner = next(index for index, task in enumerate(tasks) if task.done())
            await _settle(steps, name, winner, branches, tasks)
        return await tasks[winner]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _settle(
    steps: "Steps",
    name: StepName,
    winner: int,
    branches: Sequence[Branch],
    tasks: Sequence["asyncio.Task[Any]"],
) -> None:
    losing: list[StepName] = []
    for index, branch in enumerate(branches):
        if index != winner:
            branch.lost = True
            tasks[index].cancel()
            losing += branch.parked
    now = steps.entry.services.clock.now_ms()
    await steps.flush_held()
    await steps.record_race(name, memo.done("race", RACE, now, now, 0, winner), losing)
