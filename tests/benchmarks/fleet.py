"""The processes of one measurement: start them together, hold them at a gate until all are
connected, count what they finish in shared memory. Real processes, started by spawn.
"""

import multiprocessing
import time
from collections.abc import Callable
from ctypes import c_longlong
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import RawArray
from multiprocessing.synchronize import Event, Semaphore
from types import TracebackType
from typing import Any, Self

SPAWN = multiprocessing.get_context("spawn")
START_TIMEOUT = 30.0
STALL_TIMEOUT = 30.0
POLL = 0.005


@dataclass(frozen=True, slots=True)
class Seat:
    """What one process holds: its gate and its own two cells (count, time of the last one).

    One process writes a cell, so there is no lock; threads of that process bring their own.
    """

    ready: Semaphore
    gate: Event
    cells: Any
    index: int

    def arrive(self) -> None:
        """Say that this process is connected, then block until its gate opens."""
        self.ready.release()
        self.gate.wait()

    def done(self, count: int = 1) -> None:
        """Count finished items and note the time of the last."""
        self.cells[2 * self.index + 1] = time.monotonic_ns()
        self.cells[2 * self.index] += count


class Fleet:
    """A producer, any number of servants (coordinators) and the workers that count.

    `monotonic_ns` is one clock for all processes of a machine on Linux and macOS, so times taken
    in different processes may be subtracted.
    """

    def __init__(self, workers: int) -> None:
        self._cells = RawArray(c_longlong, 2 * workers)
        self._ready = SPAWN.Semaphore(0)
        self._producing = SPAWN.Event()
        self._working = SPAWN.Event()
        self._staff: list[SpawnProcess] = []
        self._producer: SpawnProcess | None = None
        self._workers = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._all():
            process.kill()
        for process in self._all():
            process.join()

    def worker(self, target: Callable[..., None], *args: object) -> None:
        """Add a process whose `Seat.done` counts towards the end; calls `target(seat, *args)`."""
        seat = Seat(self._ready, self._working, self._cells, self._workers)
        self._workers += 1
        self._staff.append(_start(target, seat, args))

    def servant(self, target: Callable[..., None], *args: object) -> None:
        """Add a process that runs beside the workers and counts nothing."""
        self._staff.append(_start(target, Seat(self._ready, self._working, self._cells, -1), args))

    def producer(self, target: Callable[..., None], *args: object) -> None:
        """Set the one process that sends; it ends when everything is sent."""
        seat = Seat(self._ready, self._producing, self._cells, -1)
        self._producer = _start(target, seat, args)

    def run(self, jobs: int, *, backlog: bool = False) -> float:
        """Seconds from the first send to the last item done.

        With `backlog` everything is sent before the workers may start, and the time counts from
        their start: the rate of the workers alone. Raises RuntimeError if a process dies or
        nothing is done for `STALL_TIMEOUT` seconds.
        """
        assert self._producer is not None, "call producer() before run()"
        self._await_ready()
        if backlog:
            self._producing.set()
            self._producer.join()
            if self._producer.exitcode != 0:
                raise RuntimeError(f"the producer ended with {self._producer.exitcode}")
        started = time.monotonic_ns()
        self._working.set()
        self._producing.set()
        self._await(jobs)
        return (max(self._cells[1::2]) - started) / 1e9

    def _await_ready(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        for _ in self._all():
            while not self._ready.acquire(timeout=0.1):
                if any(process.exitcode is not None for process in self._all()):
                    raise RuntimeError("a process died before it connected; see its traceback")
                if time.monotonic() > end:
                    raise RuntimeError(f"a process did not connect in {START_TIMEOUT:g} s")

    def _await(self, jobs: int) -> None:
        sentinels = [process.sentinel for process in self._staff]
        seen, moved = 0, time.monotonic()
        while seen < jobs:
            if wait(sentinels, timeout=POLL):
                raise RuntimeError(f"a process died after {seen} of {jobs}")
            now = sum(self._cells[0::2])
            if now > seen:
                seen, moved = now, time.monotonic()
            elif time.monotonic() - moved > STALL_TIMEOUT:
                raise RuntimeError(f"nothing done for {STALL_TIMEOUT:g} s after {seen} of {jobs}")

    def _all(self) -> list[SpawnProcess]:
        return [*self._staff, *([self._producer] if self._producer else [])]


def _start(target: Callable[..., None], seat: Seat, args: tuple[object, ...]) -> SpawnProcess:
    process = SPAWN.Process(target=target, args=(seat, *args), daemon=True)
    process.start()
    return process
