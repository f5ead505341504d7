"""`ctx.group`: branches of steps that run together. Plain `asyncio.gather` and task groups of steps work too."""

import enum
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from stepwell.errors import StepwellError
from stepwell.runtime import StepRuntime, SyncStepRuntime

T = TypeVar("T")


class ParallelMode(enum.Enum):
    """When a function with `distribute=True` looks for its branches' next steps: after each (RACE) or after the whole round (WAIT)."""

    WAIT = "wait"
    RACE = "race"


class Group:
    """The branches of an asynchronous function."""

    __slots__ = ("_runtime",)

    def __init__(self, runtime: StepRuntime) -> None:
        self._runtime = runtime

    def parallel(
        self,
        callables: tuple[Callable[[], Awaitable[T]], ...],
        parallel_mode: ParallelMode = ParallelMode.WAIT,
    ) -> Coroutine[Any, Any, tuple[T, ...]]:
        """Run all callables together; their results as a tuple, in the order given.

        Each may hold any number of steps. A step that failed for good raises out of its callable; the others finish first, then the first
        error in order is raised.

        >>> a, b = await ctx.group.parallel((lambda: ctx.step.run("a", f), lambda: ctx.step.run("b", g)))
        """
        return self._runtime.parallel(_checked(callables), parallel_mode.value)

    def race(self, *callables: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        """Run all callables together and return the first result; the losers are cancelled, their timers and waits removed.

        Who won is recorded, so a replay gives the same answer.

        >>> await ctx.group.race(lambda: ctx.step.sleep("late", "1h"), lambda: ctx.step.wait_for_event("paid", ...))
        """
        return self._runtime.race(_checked(callables))


class GroupSync:
    """The branches of a synchronous function, each on a thread of the worker's pool."""

    __slots__ = ("_runtime",)

    def __init__(self, runtime: SyncStepRuntime) -> None:
        self._runtime = runtime

    def parallel(
        self,
        callables: tuple[Callable[[], T], ...],
        parallel_mode: ParallelMode = ParallelMode.WAIT,
    ) -> tuple[T, ...]:
        """As `Group.parallel`."""
        return self._runtime.parallel(_checked(callables), parallel_mode.value)

    def race(self, *callables: Callable[[], T]) -> T:
        """As `Group.race`."""
        result: T = self._runtime.race(_checked(callables))
        return result


def _checked(callables: tuple[Callable[[], Any], ...]) -> tuple[Callable[[], Any], ...]:
    many = tuple(callables)
    for index, branch in enumerate(many):
        if not callable(branch):
            raise StepwellError(
                f"callables[{index}] is {type(branch).__name__}; pass functions without arguments, e.g. lambda: ctx.step.run(...)"
            )
    return many
