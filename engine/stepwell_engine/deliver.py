"""The outbox: what a shard owes others is brought there, then struck off. At least once; every effect is idempotent."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from stepwell.ids import function_shard, run_id, ulid_time_chars
from stepwell.serde.values import pack, unpack
from stepwell_engine import views
from stepwell_engine.fanout import GROUP
from stepwell_engine.loop import TROUBLE, Backoff
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store
from stepwell_engine.store.transitions import NewEvent

CANCEL_GRACE_MS: Final = 10_000
_PROMPT_S: Final = 1.0
_LATE_S: Final = 20.0
_LATE_BYTES: Final = 64 << 20
_TEXT: Final = 1_000
_PAGE: Final = 20
DEDUPE_MS: Final = 86_400_000
_NO_LIMIT: Final = (
    1 << 50
)  # an owed event was accepted already: a full stream is no reason to drop it

logger = logging.getLogger("stepwell.coordinator")

Row = tuple[bytes, list[bytes]]
T = TypeVar("T")


class Delivery:
    """Delivers entries of outboxes.

    r resolves a step, e accepts an event, c cancels an invoked run, C that with those it invoked, g, G and h are about permits.

    Each is delivered, or stays: in the outbox while its shard can't be reached or can't write, apart from it (`ud`) after an error that
    the message itself has a part in. Those are tried again by `retry`: by then a newer version may run here, or the data be mended.
    """

    __slots__ = ("_cancelled", "_metrics", "_registry", "_store", "_tasks", "_trying")

    def __init__(self, store: Store, registry: Registry, metrics: Metrics) -> None:
        self._store = store
        self._registry = registry
        self._metrics = metrics
        self._cancelled = pack(views.cancelled_error("the run that invoked it has ended", "parent"))
        # Entries that are on their way, and their bytes.
        self._trying: dict[tuple[int, bytes], int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def handle(self, shard: int, rows: Iterable[Row]) -> None:
        """Deliver entries and strike them off. Raises ServerError when that can't be done.

        What is not delivered after a second is tried on beside the next entries: its shard may be away, others are not.
        """
        # One that is claimed may be on its way here still.
        rows = [(sid, flat) for sid, flat in rows if (shard, sid) not in self._trying]
        tasks = {self._start(self._see_to(shard, sid, flat)): sid for sid, flat in rows}
        if not tasks:
            return
        done, late = await asyncio.wait(tasks, timeout=_PROMPT_S)
        if late and sum(self._trying.values()) > _LATE_BYTES:
            done, late = await asyncio.wait(tasks)
        if late:
            self._start(self._follow(shard, {task: tasks[task] for task in late}))
        await self._strike(shard, [tasks[task] for task in done if task.result()])

    async def close(self) -> None:
        """Stop trying; what is not delivered stays for the next claim. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def retry(self) -> None:
        """Try once more what was set aside, and count what is left. Raises ServerError."""
        left, whole = 0, True
        for shard in range(len(self._store.shards)):
            async for kept in undelivered(self._store, shard):
                left += 1
                try:
                    async with asyncio.timeout(_LATE_S):
                        await self._deliver(shard, kept.flat)
                except TROUBLE as error:
                    logger.warning("what shard %d has set aside: %s", shard, error)
                    whole = False
                    break
                except Exception as error:  # noqa: BLE001  it was logged when it was set aside
                    logger.debug("outbox entry %s of shard %d: %r", kept.sid, shard, error)
                else:
                    await self._settle(shard, kept.sid)
                    left -= 1
        if whole:
            self._metrics.deliveries_kept.set(left)

    async def _settle(self, shard: int, sid: bytes) -> None:
        keys = self._store.keys(shard)
        await self._store.server.call(keys.root, "HDEL", keys.build("undelivered"), sid)
        logger.info("outbox entry %s of shard %d is delivered at last", sid, shard)

    def _start(self, coro: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _see_to(self, shard: int, sid: bytes, flat: list[bytes]) -> bool:
        """Deliver or set aside; False when neither could be done for so long that it is left to the next claim."""
        name = shard, sid
        backoff: Backoff | None = None  # most need none
        self._trying[name] = sum(map(len, flat))
        try:
            async with asyncio.timeout(_LATE_S):
                while True:
                    try:
                        await self._deliver_or_keep(shard, sid, flat)
                    except TROUBLE as error:
                        self._metrics.redis_errors.inc()
                        if backoff is None:
                            backoff = Backoff()
                            logger.warning("outbox entry %s of shard %d: %s", sid, shard, error)
                        await backoff.pause()
                    else:
                        return True
        except TimeoutError:
            return False
        except Exception:
            logger.exception("outbox entry %s of shard %d can't even be set aside", sid, shard)
            return False
        finally:
            del self._trying[name]

    async def _follow(self, shard: int, tasks: "Mapping[asyncio.Task[bool], bytes]") -> None:
        """Strike off late entries as they are delivered."""
        left, missed = set(tasks), 0
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            sids = [tasks[task] for task in done if task.result()]
            missed += len(done) - len(sids)
            try:
                await self._strike(shard, sids)
            except TROUBLE as error:
                # They are claimed and delivered once more, which changes nothing.
                logger.warning("the outbox of shard %d: %s", shard, error)
        if missed:
            logger.warning(
                "%d outbox entries of shard %d could not be delivered for %g s; they are tried again",
                missed, shard, _LATE_S,
            )  # fmt: skip

    async def _deliver_or_keep(self, shard: int, sid: bytes, flat: list[bytes]) -> None:
        try:
            await self._deliver(shard, flat)
        except TROUBLE:
            raise
        except Exception as error:
            self._metrics.deliveries_failed.inc()
            logger.exception(
                "outbox entry %s of shard %d (%s) can't be delivered; it is kept and tried again every minute",
                sid, shard, describe(flat),
            )  # fmt: skip
            kept = pack([flat, f"{type(error).__name__}: {error}"[:_TEXT]])
            await self._store.shards[shard].set_aside(GROUP, sid, kept)
            self._metrics.deliveries_kept.inc()

    async def _strike(self, shard: int, done: Sequence[bytes]) -> None:
        if not done:
            return
        keys, call = self._store.keys(shard), self._store.server.call
        # In this order: an entry that is deleted and pending is found by whoever claims it. The other way round nobody would look
        # for it again, and as the oldest of its stream it would keep every run from being swept.
        await asyncio.gather(
            call(keys.root, "XDEL", keys.outbox, *done),
            call(keys.root, "XACK", keys.outbox, GROUP, *done),
        )

    async def _deliver(self, shard: int, flat: list[bytes]) -> None:
        _, kind, _, a, _, b, _, c, _, d = flat
        match kind:
            case b"r":
                run = a.decode()
                await self._store.of_run(run).resolve(run, b.decode(), "", c.decode(), d)
            case b"e":
                await self._accept(int(a), b.decode(), c, d)
            case b"c":
                await self._cancel_child(unpack(c), int(d))
            case b"C":
                await self._cancel_child(unpack(c), int(d), children=True)
            case b"g" | b"G" | b"h":
                await self._store.shards[int(a)].permit(
                    kind.decode(), b.decode(), c.decode(), word=d, home=shard
                )
            case _:
                raise ValueError(f"an outbox entry of unknown kind {kind!r}")

    async def _accept(self, shard: int, event: str, names: bytes, encoded: bytes) -> None:
        name, _, id_hash = names.decode().rpartition("\0")
        await self._store.shards[shard].ingest(
            event,  # the seed: an entry delivered twice is accepted once
            [NewEvent(name, encoded, event, id_hash)],
            max_len=_NO_LIMIT,
            dedupe_ms=DEDUPE_MS,
            deadline=None,
        )

    async def _cancel_child(
        self, head: list[Any], registered_us: int, *, children: bool = False
    ) -> None:
        details = head[3]
        app, fn = details["app"], details["fn"]
        function = self._registry.known(app, fn)
        if function is None:
            # The registry may be older than the invoke.
            await self._registry.refresh()
            function = self._registry.known(app, fn)
        if function is None:
            return
        ms = registered_us // 1000
        event = ulid_time_chars(ms) + details["entropy"]
        child = run_id(ms, event, app, fn, function_shard(app, fn, len(self._store.shards)))
        await self._store.of_run(child).cancel(
            child,
            error=self._cancelled,
            grace_ms=CANCEL_GRACE_MS,
            tombstone=function.number,
            children=children,
            child_event=event,
        )


class Undelivered(NamedTuple):
    """A message that was set aside: its entry's id and fields, and the error."""

    sid: bytes
    flat: list[bytes]
    error: str


async def undelivered(store: Store, shard: int) -> AsyncIterator[Undelivered]:
    """What a shard owes others and could not deliver, in no order. Raises ServerError."""
    key = store.keys(shard).build("undelivered")
    cursor = b"0"
    while True:
        cursor, found = await store.server.call(key, "HSCAN", key, cursor, "COUNT", _PAGE)
        for sid, kept in zip(found[::2], found[1::2], strict=True):
            flat, error = unpack(kept)
            yield Undelivered(sid, flat, error)
        if cursor == b"0":
            return


def describe(flat: Sequence[bytes]) -> str:
    """What a message is about, in a few words."""
    fields = [field.decode(errors="replace") for field in flat[1:6:2]]
    match fields:
        case ["r", run, step]:
            return f"the result of step {step} for run {run}"
        case ["e", shard, event]:
            return f"event {event} for shard {shard}"
        case ["c" | "C", run, step]:
            return f"the cancel of what run {run} invoked in step {step}"
        case ["g" | "G" | "h", shard, gate]:
            return f"a permit of concurrency gate {gate} for shard {shard}"
        case _:
            return f"a message of unknown kind {fields[:1]}"
