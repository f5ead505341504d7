"""Runs a coroutine on uvloop where it is installed, else on asyncio's own loop."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Like `asyncio.run`, on the fastest loop there is.

    raise SystemExit(run(worker.run()))
    """
    with asyncio.Runner(loop_factory=loop_factory(), debug=debug) as runner:
        return runner.run(main)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """`uvloop.new_event_loop`, or None where uvloop isn't installed (Windows, PyPy)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def settle_garbage() -> None:
    """Tell the collector that what is loaded now stays, and to look less often: for a server process, once it has started.

    A run makes a few dozen objects that die by reference count; scanning every module for them costs a tenth of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
