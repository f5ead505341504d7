"""The pool for synchronous user code."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from stepwell_workers.threads import ThreadPool

pytestmark = pytest.mark.anyio
NAME: ContextVar[str] = ContextVar("name", default="nobody")


async def test_results_errors_and_context_pass_through() -> None:
    pool = ThreadPool(2)
    NAME.set("mia")
    assert await pool.run(lambda: NAME.get()) == "mia"
    with pytest.raises(ValueError, match="boom"):
        await pool.run(_raise, ValueError("boom"))
    with pytest.raises(SystemExit):
        await pool.run(_raise, SystemExit(3))
    with pytest.raises(RuntimeError, match="StopIteration"):
        await pool.run(_raise, StopIteration())
    pool.close()


def _raise(error: BaseException) -> None:
    raise error


async def test_no_more_threads_than_its_size_and_all_daemons() -> None:
    pool = ThreadPool(3, name="pool-test")
    gate = threading.Event()
    jobs = [pool.run(gate.wait, 10) for _ in range(8)]
    await asyncio.sleep(0)
    mine = [t for t in threading.enumerate() if t.name.startswith("pool-test")]
    assert 1 <= len(mine) <= 3
    assert all(t.daemon for t in mine)
    gate.set()
    assert await asyncio.gather(*jobs) == [True] * 8
    pool.close()


async def test_a_cancelled_wait_drops_the_result() -> None:
    pool = ThreadPool(1)
    gate = threading.Event()
    future = pool.run(gate.wait, 10)
    future.cancel()
    gate.set()
    assert await pool.run(lambda: 5) == 5
    pool.close()
