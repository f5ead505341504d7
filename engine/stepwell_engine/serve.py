"""A coordinator as a process: from a URL to its end at SIGTERM, with health and metrics."""

import asyncio
import logging
import signal
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from stepwell.durations import Duration
from stepwell_engine.coordinator import Coordinator
from stepwell_engine.garbage import settle_garbage
from stepwell_engine.health import Health
from stepwell_engine.metrics import Metrics
from stepwell_engine.store.store import Store

logger = logging.getLogger("stepwell.coordinator")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorOptions:
    """How a coordinator process runs. `metrics_port` None: no HTTP; 0: a free port."""

    url: str
    namespace: str
    shards: int | None = None
    retention: Duration = "7d"
    metrics_port: int | None = None


async def serve(
    options: CoordinatorOptions, *, started: Callable[[Coordinator], None] | None = None
) -> None:
    """Coordinate until SIGTERM or SIGINT, or until cancelled.

    `started` is called when it reads. Raises ConfigError, NamespaceError and ServerError when it
    can't start; once started it outlives a server that goes away.

        asyncio.run(serve(CoordinatorOptions(url="redis://localhost", namespace="stepwell")))
    """
    store = await Store.open(
        options.url,
        namespace=options.namespace,
        shards=options.shards,
        name="stepwell-coordinator",
    )
    try:
        for warning in store.warnings:
            logger.warning("%s", warning)
        coordinator = Coordinator(store, retention=options.retention, metrics=Metrics())
        with ExitStack() as stack:
            if options.metrics_port is not None:
                health = Health(
                    options.metrics_port,
                    registry=coordinator.metrics.registry,
                    age=lambda: coordinator.age,
                )
                stack.enter_context(health)
                logger.info("metrics and health on port %d", health.port)
            told = stack.enter_context(_told_to_stop())
            async with coordinator:
                settle_garbage()
                logger.info("coordinator %s serves %d shard(s)", coordinator.id, len(store.shards))
                if started is not None:
                    started(coordinator)
                await told.wait()
                logger.info("stopping; other coordinators take over what is left")
    finally:
        await store.aclose()


@contextmanager
def _told_to_stop() -> Generator[asyncio.Event, None, None]:
    """Set at the first SIGTERM or SIGINT. The second one ends the process: all it does can be done again."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(number: signal.Signals) -> None:
        told.set()
        loop.remove_signal_handler(number)

    try:
        for number in _SIGNALS:
            loop.add_signal_handler(number, tell, number)
    except (NotImplementedError, RuntimeError, ValueError):
        pass  # not the main thread, or no such signals: whoever runs us cancels us
    try:
        yield told
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
