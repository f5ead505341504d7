"""Threads for synchronous user code: our own, never the loop's default executor, and daemons, so that a hung one can't hold up an exit."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class ThreadPool:
    """At most `size` daemon threads, started as they are needed.

    >>> await ThreadPool(8).run(blocking_call, argument)
    """

    def __init__(self, size: int, *, name: str = "stepwell-sync") -> None:
        self._size = size
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0

    def run(self, fn: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Call `fn(*args)` in a thread, in this task's context; the future has its result or exception."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = copy_context()
        self._jobs.put((loop, future, lambda: context.run(fn, *args)))
        if self._idle < self._jobs.qsize() and len(self._threads) < self._size:
            thread = threading.Thread(
                target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Let idle threads end; busy ones end after their call."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while True:
            self._idle += 1
            job = self._jobs.get()
            self._idle -= 1
            if job is None:
                return
            loop, future, call = job
            try:
                result, error = call(), None
            except BaseException as exc:  # noqa: BLE001 - it is the caller's to handle
                result, error = None, exc
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits for this result
            del job, future, call, result, error


def _settle(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        # A future refuses StopIteration; keep what the user raised as the cause.
        wrapped = RuntimeError("step callback raised StopIteration")
        wrapped.__cause__ = error
        future.set_exception(wrapped)
    else:
        future.set_exception(error)
