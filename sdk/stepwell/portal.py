"""One event loop in a thread of its own: how blocking callers use the asynchronous client.

So there is one implementation: `send_sync` is `send`, run there.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """A thread with a loop, started by the first call and kept until `stop`.

    Callers of any thread may use it at once. After a fork the child starts its own.

        portal = Portal("stepwell-client")
        portal.run(asyncio.sleep(0, result=1))  # 1
    """

    __slots__ = ("_lock", "_loop", "_name", "_pid", "_stop", "_thread")

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._pid = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def running(self) -> bool:
        """Whether this process has the thread."""
        return self._pid == os.getpid() and self._thread is not None and self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the portal's loop, with the caller's context variables; what it returns.

        Blocks. An interrupt of the caller (Ctrl-C) cancels the work. Raises RuntimeError on the
        portal's own thread, where it would wait for itself.
        """
        loop = self._started()
        if self._thread is threading.current_thread():
            work.close()
            raise RuntimeError(
                "a ..._sync method was called on the client's own event loop (from middleware?); "
                "await the method without _sync instead"
            )
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread; what still runs on it is cancelled. The next `run` starts another."""
        with self._lock:
            thread, loop, stop = self._thread, self._loop, self._stop
            ours = self.running
            self._thread = self._loop = self._stop = None
        if ours and thread is not None and loop is not None and stop is not None:
            loop.call_soon_threadsafe(stop.set)
            thread.join()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if not self.running or self._loop is None:
                started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
                # A daemon: a program that forgot to close its client must still end.
                self._thread = threading.Thread(
                    target=_serve, args=(started,), name=self._name, daemon=True
                )
                self._thread.start()
                self._loop, self._stop = started.result()
                self._pid = os.getpid()
            return self._loop


def _serve(started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    async def main() -> None:
        stop = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    asyncio.run(main())
