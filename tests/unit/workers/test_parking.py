"""When is a run quiescent? Each construct that user code may wait in, with its members parked, done or busy."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from stepwell_workers.parking import quiescent

pytestmark = pytest.mark.anyio


class Bench:
    """A root task whose branches wait on futures: `park()` is a parked step, `busy()` is the outside world."""

    def __init__(self) -> None:
        self.parked: set[asyncio.Future[Any]] = set()
        self.others: list[asyncio.Future[Any]] = []

    async def park(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self.parked.add(future)
        await future

    async def busy(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self.others.append(future)
        await future

    async def judge(self, root: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        task = asyncio.create_task(root())
        for _ in range(5):
            await asyncio.sleep(0)
        result = quiescent([task], self.parked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return result


async def done() -> None:
    """A branch that has nothing to wait for."""


async def gather(*branches: Coroutine[Any, Any, Any]) -> None:
    await asyncio.gather(*branches)


async def task_group(*branches: Coroutine[Any, Any, Any]) -> None:
    async with asyncio.TaskGroup() as group:
        for branch in branches:
            group.create_task(branch)


async def anyio_group(*branches: Coroutine[Any, Any, Any]) -> None:
    async def run(branch: Coroutine[Any, Any, Any]) -> None:
        await branch

    async with anyio.create_task_group() as group:
        for branch in branches:
            group.start_soon(run, branch)


async def wait_all(*branches: Coroutine[Any, Any, Any]) -> None:
    await asyncio.wait([asyncio.ensure_future(branch) for branch in branches])


async def wait_for(*branches: Coroutine[Any, Any, Any]) -> None:
    await asyncio.wait_for(gather(*branches), timeout=60)


async def as_completed(*branches: Coroutine[Any, Any, Any]) -> None:
    for next_one in asyncio.as_completed(branches):
        await next_one


async def nested(*branches: Coroutine[Any, Any, Any]) -> None:
    await gather(task_group(*branches), done())


CONSTRUCTS = [gather, task_group, anyio_group, wait_all, wait_for, nested]


@pytest.mark.parametrize("construct", CONSTRUCTS)
async def test_parked_branches_are_quiet(
    construct: Callable[..., Coroutine[Any, Any, Any]],
) -> None:
    bench = Bench()
    assert await bench.judge(lambda: construct(bench.park(), bench.park(), done()))


@pytest.mark.parametrize("construct", CONSTRUCTS)
async def test_one_busy_branch_is_activity(
    construct: Callable[..., Coroutine[Any, Any, Any]],
) -> None:
    bench = Bench()
    assert not await bench.judge(lambda: construct(bench.park(), bench.busy()))


async def test_what_cannot_be_seen_through_counts_as_activity() -> None:
    bench = Bench()
    assert not await bench.judge(lambda: as_completed(bench.park(), bench.park()))


async def test_a_lone_parked_step_is_quiet_and_a_lone_wait_for_the_world_is_not() -> None:
    bench = Bench()
    assert await bench.judge(bench.park)
    assert not await bench.judge(bench.busy)


async def test_a_woken_step_is_activity_before_its_task_has_run() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.park())
    await asyncio.sleep(0)
    (future,) = bench.parked
    future.set_result(None)
    assert not quiescent([task], bench.parked)
    await task
