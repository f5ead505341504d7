"""Crons at work: what the registry wants is in `due`, and what is due there comes true."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from stepwell_engine.cron_plan import AGAIN_MS, TickPlan, crons, plan_ticks
from stepwell_engine.fanout import RECORD_TTL_MS
from stepwell_engine.loop import TROUBLE
from stepwell_engine.metrics import Metrics
from stepwell_engine.once import Once
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store
from stepwell_engine.triggers import RegisteredFunction

_PAGE: Final = 200
_TRIES: Final = 5

logger = logging.getLogger("stepwell.coordinator")


class Crons:
    """The crons of all functions. Any number of coordinators may have one: tick.lua lets one of them do each thing.

    `sync` brings changes of the registry to `due`; `handle` does what due.lua found.
    """

    __slots__ = ("_first", "_metrics", "_registry", "_store")

    def __init__(self, store: Store, registry: Registry, metrics: Metrics) -> None:
        self._store = store
        self._registry = registry
        self._metrics = metrics
        self._first = Once()

    async def sync(self) -> None:
        """Read the registry if it changed, and begin, change or end what its functions' crons want. Raises ServerError.

        Its shards at once, of each a page of functions at a time: two round trips a page, and one more for those that changed.
        """
        await self._registry.refresh()
        shards: dict[int, list[str]] = {}
        for function in self._registry.all(removed=True):
            self._complain(function)
            shards.setdefault(function.shard, []).append(function.number)
        await asyncio.gather(*(self._sync(shard, numbers) for shard, numbers in shards.items()))

    async def _sync(self, shard: int, numbers: Sequence[str]) -> None:
        for start in range(0, len(numbers), _PAGE):
            page = numbers[start : start + _PAGE]
            for _ in range(_TRIES):
                # Again after a conflict: the other may have known an older registry.
                page = await self._bring(shard, page, None)
                if not page:
                    break

    async def handle(self, shard: int, numbers: Sequence[str], now_ms: int) -> None:
        """Bring about the due ticks of a shard's functions. Raises ServerError."""
        await self._bring(shard, numbers, now_ms)

    async def _bring(self, shard: int, numbers: Sequence[str], at_ms: int | None) -> list[str]:
        """Plan and write; returns the functions whose state another changed meanwhile.

        `at_ms`: what is due then; None: nothing is done but for triggers that came or went.
        """
        read_ms, states = await self._store.shards[shard].crons(numbers)
        now_ms = read_ms if at_ms is None else at_ms
        # After the states: whoever wrote them knew no later registry than this one.
        await self._registry.refresh()
        done = await asyncio.gather(
            *(
                self._one(shard, number, state, now_ms, new=at_ms is None)
                for number, state in zip(numbers, states, strict=True)
            ),
            return_exceptions=True,
        )
        left: list[str] = []
        for number, result in zip(numbers, done, strict=True):
            if isinstance(result, TROUBLE):
                raise result
            if isinstance(result, BaseException):
                logger.error("the crons of function %s are put off", number, exc_info=result)
                await self._put_off(shard, number, now_ms + AGAIN_MS)
            elif not result:
                left.append(number)
        return left

    async def _one(
        self,
        shard: int,
        number: str,
        state: Mapping[str, bytes] | Exception,
        now_ms: int,
        *,
        new: bool,
    ) -> bool:
        """One function; False if its state was changed by another. `new`: nothing is done but for triggers that came or went."""
        if isinstance(state, Exception):
            raise state
        function = self._registry.numbered(number)
        if function is None:
            # The registry keeps all that has crons, so another version wrote what can't be read here; it may do this too.
            await self._put_off(shard, number, now_ms + AGAIN_MS)
            return True
        if new and {cron.identity for cron in crons(function.config)} == set(state):
            return True
        plan = plan_ticks(function, state, now_ms)
        started = await self._store.shards[shard].tick(
            number, plan.next_ms, state, plan.after, plan.records, plan.runs,
            record_ttl_ms=RECORD_TTL_MS + plan.keep_ms,
        )  # fmt: skip
        if started is None:
            return False
        self._count(function, plan, started, now_ms)
        return True

    def _count(
        self, function: RegisteredFunction, plan: TickPlan, started: int, now_ms: int
    ) -> None:
        names = function.app, function.fn
        if plan.fired:
            self._metrics.cron_ticks.labels(*names).inc(len(plan.fired))
            self._metrics.runs_started.labels(*names).inc(started)
            self._metrics.cron_lateness.observe((now_ms - plan.fired[-1]) / 1000)
        if plan.skipped:
            self._metrics.cron_skipped.labels(*names).inc(plan.skipped)
        for option, text in plan.faults:
            self._metrics.flow_key_errors.labels(*names, option).inc()
            if self._first(function.number, option, text):
                logger.warning(
                    "function %s: %s has no usable value for a cron's event: %s; more of these are only counted "
                    "(stepwell_flow_key_errors_total)",
                    function.id, option, text,
                )  # fmt: skip

    async def _put_off(self, shard: int, number: str, until_ms: int) -> None:
        """Look at a function again later; what can't be handled must not be found due over and over."""
        keys = self._store.keys(shard)
        await self._store.server.call(
            keys.root, "ZADD", keys.build("due"), "XX", until_ms, f"%{number}"
        )

    def _complain(self, function: RegisteredFunction) -> None:
        for cron in crons(function.config):
            if cron.schedule is None and self._first(function.number, cron.text):
                logger.error(
                    "function %s: its cron %r can't be read here and starts nothing",
                    function.id, cron.text,
                )  # fmt: skip


def registers(rows: Iterable[Any]) -> bool:
    """Whether stream entries tell of functions registered anew (register.lua)."""
    return any(len(flat) > 5 and flat[1] == b"w" and flat[5] == b"fn" for _, flat in rows)
