"""A worker as a process: start, watch the loop, answer probes, drain at SIGTERM."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from stepwell_engine.garbage import settle_garbage
from stepwell_engine.health import Health
from stepwell_workers.child import watch_parent
from stepwell_workers.lag import LagWatch
from stepwell_workers.signals import Shutdown
from stepwell_workers.worker import Worker

logger = logging.getLogger("stepwell.worker")

_SAMPLE: Final = 1.0


async def serve(
    worker: Worker,
    *,
    drain: float,
    metrics_port: int | None = None,
    started: Callable[[Worker], None] | None = None,
    shutdown: Shutdown | None = None,
) -> None:
    """Run `worker` until SIGTERM or SIGINT; then let its steps end for up to `drain` seconds.

    A second signal releases the work at once. `metrics_port` None: no HTTP; 0: a free port. `started`
    is called when it leases. Raises what `Worker.start` raises, and ConfigError for a taken port.
    The caller should end the process hard afterwards: threads of user code may still run.

        run(serve(Worker(load("shop.jobs:client")), drain=30.0))
    """
    if shutdown is None:
        with Shutdown(logger=logger) as own:
            return await serve(
                worker, drain=drain, metrics_port=metrics_port, started=started, shutdown=own
            )
    watch_parent()
    with ExitStack() as stack:
        poll = Poll(worker)
        if metrics_port is not None:
            # Before the start: a probe of a worker that can't reach its server is told so.
            health = Health(metrics_port, registry=worker.metrics.registry, age=lambda: poll.age)
            stack.enter_context(health)
            logger.info("metrics and health on port %d", health.port)
        await worker.start()
        lag = LagWatch(worker.metrics.loop_lag.set)
        lag.start()
        stack.callback(lag.stop)
        sampling = asyncio.create_task(poll.run(), name="stepwell-poll")
        stack.callback(sampling.cancel)
        settle_garbage()
        logger.info("worker %s is ready", worker.worker_id)
        if started is not None:
            started(worker)
        await shutdown.drain.wait()
        await _end(worker, drain, shutdown)
    return None


async def _end(worker: Worker, grace: float, shutdown: Shutdown) -> None:
    draining = asyncio.create_task(worker.drain(grace))
    release = asyncio.create_task(shutdown.release.wait())
    await asyncio.wait({draining, release}, return_when=asyncio.FIRST_COMPLETED)
    release.cancel()
    if not draining.done():
        # Cancelled first: the drain would wait for steps that `stop` interrupts.
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        await worker.stop()
        return
    await draining


class Poll:
    """Readiness across threads: the age of the last answer, as the loop saw it, grown by now.

    So a blocked loop makes the worker unready, too.
    """

    __slots__ = ("_at", "_worker")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._at: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the server last answered; None before the start. From any thread."""
        return None if self._at is None else time.monotonic() - self._at

    async def run(self) -> None:
        """Look every second, for ever."""
        while True:
            self._at = time.monotonic() - self._worker.age
            await asyncio.sleep(_SAMPLE)
