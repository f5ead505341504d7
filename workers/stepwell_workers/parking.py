"""When can nothing of a run go on? Then it may be suspended: its state is in the server, its coroutine can be closed.

A step that cannot finish now parks on a future. A run is quiescent when each of its tasks waits, through any number of gathers,
task groups and `asyncio.wait`s, on parked futures only. What can't be seen through (a lock, a socket, `as_completed`) counts as
activity: the run then simply stays in memory, which is always correct.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import FrameType
from typing import Any

# The entry whose code runs here.
OWNER: ContextVar[object | None] = ContextVar("stepwell_owner", default=None)

Waitable = asyncio.Future[Any]


def quiescent(tasks: Iterable["asyncio.Task[Any]"], parked: set[Waitable]) -> bool:
    """True when each unfinished task of `tasks` waits on `parked` futures only."""
    seen: dict[Waitable, bool] = {}
    return all(_blocked(task, parked, seen) for task in tasks)


def waits_on(task: "asyncio.Task[Any]", future: Waitable) -> bool:
    """Whether the task itself waits for the future, with nothing in between."""
    return getattr(task, "_fut_waiter", None) is future


def _blocked(future: Waitable, parked: set[Waitable], seen: dict[Waitable, bool]) -> bool:
    if future in parked:
        return not future.done()
    if future in seen:
        return seen[future]
    # A cycle (a task that awaits itself through others) makes no progress by itself.
    seen[future] = True
    seen[future] = result = _judge(future, parked, seen)
    return result


def _judge(future: Waitable, parked: set[Waitable], seen: dict[Waitable, bool]) -> bool:
    if future.done():
        # Done tasks hold nobody back; a done plain future is about to wake its waiter.
        return isinstance(future, asyncio.Task)
    children: Iterable[Waitable] | None = getattr(future, "_children", None)
    if children is not None:
        return all(child.done() or _blocked(child, parked, seen) for child in children)
    if not isinstance(future, asyncio.Task):
        return False
    waiter: Waitable | None = getattr(future, "_fut_waiter", None)
    if waiter is None or waiter.done():
        return False
    if waiter in parked or isinstance(waiter, asyncio.Task) or hasattr(waiter, "_children"):
        return _blocked(waiter, parked, seen)
    members = _group_members(future)
    if not members:
        return False
    return all(m.done() or _blocked(m, parked, seen) for m in members)


def _group_members(task: "asyncio.Task[Any]") -> list[Waitable] | None:
    """Whom the construct waits for in which a task is suspended, or None when it is not one we know."""
    for frame in _frames(task):
        name = (frame.f_globals.get("__name__"), frame.f_code.co_qualname)
        reader = _READERS.get(name)
        if reader is not None:
            return list(reader(frame.f_locals))
    return None


def _frames(task: "asyncio.Task[Any]") -> list[FrameType]:
    """The frames of the task's await chain, innermost first."""
    frames: list[FrameType] = []
    coro: Any = task.get_coro()
    while coro is not None:
        frame = (
            getattr(coro, "cr_frame", None)
            or getattr(coro, "gi_frame", None)
            or getattr(coro, "ag_frame", None)
        )
        if frame is not None:
            frames.append(frame)
        coro = (
            getattr(coro, "cr_await", None)
            or getattr(coro, "gi_yieldfrom", None)
            or getattr(coro, "ag_await", None)
        )
    frames.reverse()
    return frames[:4]


def _tasks_of_self(local: dict[str, Any]) -> Iterable[Waitable]:
    tasks: Iterable[Waitable] = getattr(local["self"], "_tasks", ())
    return tasks


def _one(name: str) -> Callable[[dict[str, Any]], Iterable[Waitable]]:
    def read(local: dict[str, Any]) -> Iterable[Waitable]:
        return [local[name]] if name in local else ()

    return read


def _all(name: str) -> Callable[[dict[str, Any]], Iterable[Waitable]]:
    def read(local: dict[str, Any]) -> Iterable[Waitable]:
        many: Iterable[Waitable] = local.get(name, ())
        return many

    return read


_READERS: dict[tuple[Any, str], Callable[[dict[str, Any]], Iterable[Waitable]]] = {
    ("asyncio.taskgroups", "TaskGroup.__aexit__"): _tasks_of_self,
    ("asyncio.taskgroups", "TaskGroup._aexit"): _tasks_of_self,
    ("anyio._backends._asyncio", "TaskGroup.__aexit__"): _tasks_of_self,
    ("asyncio.tasks", "_wait"): _all("fs"),
    ("asyncio.tasks", "wait_for"): _one("fut"),
}
