"""A client's gateways, one for each event loop it is used on: connections belong to their loop."""

import asyncio
import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

from stepwell._engine import open_gateway
from stepwell.gateway import Gateway, GatewayOptions

Loop = asyncio.AbstractEventLoop


class Connections:
    """Opens a gateway at its first use on a loop, and again after `aclose`.

    `options` is asked at each opening.
    """

    __slots__ = ("_lock", "_opening", "_options", "_ready")

    def __init__(self, options: Callable[[], GatewayOptions]) -> None:
        self._options = options
        self._ready: WeakKeyDictionary[Loop, Gateway] = WeakKeyDictionary()
        self._opening: WeakKeyDictionary[Loop, asyncio.Task[Gateway]] = WeakKeyDictionary()
        self._lock = threading.Lock()  # several loops run in several threads

    def ready(self) -> Gateway | None:
        """The running loop's gateway if it is open: what a hot path asks first."""
        return self._ready.get(asyncio.get_running_loop())

    async def get(self) -> Gateway:
        """The running loop's gateway. Errors as for opening one; the next call tries again."""
        loop = asyncio.get_running_loop()
        ready = self._ready.get(loop)
        if ready is not None:
            return ready
        opening = self._opening.get(loop)
        if opening is None:
            opening = loop.create_task(self._open(loop), name="stepwell-connect")
            opening.add_done_callback(_seen)
            with self._lock:
                self._opening[loop] = opening
        # Shielded: one caller's cancellation must not take the connection from the others.
        return await asyncio.shield(opening)

    async def aclose(self) -> None:
        """Close the gateways of all loops."""
        here = asyncio.get_running_loop()
        with self._lock:
            loops = {*self._ready, *self._opening}
        for loop in loops:
            if loop is here:
                await self._close(loop)
            elif loop.is_running():
                there = asyncio.run_coroutine_threadsafe(self._close(loop), loop)
                await asyncio.wrap_future(there)
            else:
                self._drop(loop)  # nothing can run there any more

    async def _open(self, loop: Loop) -> Gateway:
        try:
            gateway = await open_gateway(self._options())
            with self._lock:
                # A gateway holds its loop, so entries of closed loops would stay for ever.
                for old in [known for known in self._ready if known.is_closed()]:
                    del self._ready[old]
                self._ready[loop] = gateway
            return gateway
        finally:
            with self._lock:
                self._opening.pop(loop, None)

    async def _close(self, loop: Loop) -> None:
        opening = self._opening.get(loop)
        if opening is not None:
            opening.cancel()
            await asyncio.wait((opening,))
        gateway = self._drop(loop)
        if gateway is not None:
            await gateway.aclose()

    def _drop(self, loop: Loop) -> Gateway | None:
        with self._lock:
            return self._ready.pop(loop, None)


def _seen(task: "asyncio.Task[Gateway]") -> None:
    if not task.cancelled():
        task.exception()  # its callers have it, and may all have been cancelled
