"""The bare path: the same journey as a Stepwell run (event stream, coordinator, queue, lease,
recorded steps, end) without history, retries, fencing or flow control. It is the yardstick: what
this machine, this server and Python allow before any promise is kept.

producer ─XADD─► stream ─XREADGROUP 500─► coordinator ─one script a batch─► queue and run hashes
         ─lease ≤ 200 with their hashes─► worker ─one pipeline a loop turn─► steps and ends
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from ctypes import c_longlong
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import RawArray
from typing import Any

import msgpack
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from .bench import Bench, Row
from .fleet import Fleet, Seat

STREAM, GROUP = "{bare}:events", "bare"
QUEUE, BELL, RUN = "{bare}:queue", "{bare}:bell", "{bare}:run:"

SEND_BATCH = 500
READ_BATCH = 500
LEASE_BATCH = 200
CONCURRENCY = 400
FLIGHTS = 2
SIZES = {0: 40_000, 1: 30_000, 3: 20_000, 10: 10_000}
"""Steps of a run → runs measured."""
LEASE_MS = 30_000
BLOCK_MS = 5_000

# One batch of events becomes runs: hashes, queue, acknowledgement and bell together.
FAN_OUT = """
local queue, stream, bell = KEYS[1], KEYS[2], KEYS[3]
local group, now, prefix = ARGV[1], ARGV[2], ARGV[3]
local items, acks = {}, {}
for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  redis.call('HSET', prefix .. id, 'event', ARGV[i + 1], 'status', 'queued')
  items[#items + 1] = now
  items[#items + 1] = id
  acks[#acks + 1] = id
end
redis.call('ZADD', queue, unpack(items))
redis.call('XACK', stream, group, unpack(acks))
redis.call('XTRIM', stream, 'MINID', '~', acks[#acks])
if redis.call('LLEN', bell) == 0 then redis.call('RPUSH', bell, '1') end
return #acks
"""

# Up to `limit` runs with their whole hash, so that a worker needs no second trip. Nothing reclaims
# a lease here, so its mark lives in the hash and the end needs no second command.
LEASE = """
local leased = {}
local popped = redis.call('ZPOPMIN', KEYS[1], ARGV[1])
for i = 1, #popped, 2 do
  local key = ARGV[3] .. popped[i]
  leased[#leased + 1] = {popped[i], redis.call('HGETALL', key)}
  redis.call('HSET', key, 'status', 'running', 'lease', ARGV[2])
end
return leased
"""


class Gather:
    """Sends the commands of all concurrent runs of one loop turn as one pipeline.

    While `FLIGHTS` pipelines are under way the next one fills: the slower the server, the larger
    the batch. Two, so that the server works on one while Python packs the other.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._flights = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, *command: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if len(self._waiting) == 1 and self._flights < FLIGHTS:
            self._flights += 1
            task = asyncio.create_task(self._fly())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    async def _fly(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            pipe = self._redis.pipeline(transaction=False)
            for command, _ in batch:
                pipe.execute_command(*command)
            for (_, future), reply in zip(batch, await pipe.execute(), strict=True):
                future.set_result(reply)
        # In the same turn as the list was seen empty: no command can wait for a flight that ended.
        self._flights -= 1


@dataclass(frozen=True, slots=True)
class Run:
    """A leased run: its key, its event's data, and what its hash remembered."""

    gather: Gather
    id: bytes
    data: dict[str, Any]
    memo: dict[bytes, bytes]

    async def step(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """The remembered value of the step, or its work's, recorded before it returns."""
        field = b"step:" + name.encode()
        if (known := self.memo.get(field)) is not None:
            return msgpack.unpackb(known)
        value = await work()
        await self.gather.call("HSET", RUN.encode() + self.id, field, msgpack.packb(value))
        return value

    async def end(self, output: Any) -> None:
        """Record the outcome; it ends the lease."""
        key, packed = RUN.encode() + self.id, msgpack.packb(output)
        await self.gather.call("HSET", key, "status", "completed", "output", packed)


async def _nothing() -> None:
    return None


class Worker:
    """Leases while there is room and runs the one function there is."""

    def __init__(self, redis: "Redis", lease: str, seat: Seat, starts: Any) -> None:
        self._redis = redis
        self._gather = Gather(redis)
        self._lease = lease
        self._seat = seat
        self._starts = starts
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()

    async def run(self) -> None:
        while True:
            while CONCURRENCY - len(self._tasks) < LEASE_BATCH:
                self._room.clear()
                await self._room.wait()
            expiry = time.monotonic_ns() // 1_000_000 + LEASE_MS
            leased = await self._gather.call(
                "EVALSHA", self._lease, 1, QUEUE, LEASE_BATCH, expiry, RUN
            )
            for run_id, pairs in leased:
                task = asyncio.create_task(self._execute(run_id, pairs))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
            if not leased:
                await self._redis.blpop([BELL], timeout=BLOCK_MS // 1000)

    async def _execute(self, run_id: bytes, pairs: list[bytes]) -> None:
        memo = dict(zip(pairs[::2], pairs[1::2], strict=True))
        event = msgpack.unpackb(memo[b"event"])
        run = Run(self._gather, run_id, event["data"], memo)
        await run.end(await self._function(run))
        self._seat.done()

    async def _function(self, run: Run) -> int:
        self._starts[run.data["n"]] = time.monotonic_ns() - run.data["sent"]
        for index in range(run.data["steps"]):
            await run.step(f"step-{index}", _nothing)
        return int(run.data["n"])

    def _ended(self, task: asyncio.Task[None]) -> None:
        task.result()
        self._tasks.discard(task)
        self._room.set()


def _event(number: int, steps: int) -> bytes:
    data = {"n": number, "steps": steps, "sent": time.monotonic_ns(), "order": "A-1024"}
    event = {"name": "shop/order.placed", "data": data, "user": {"id": "u-17"}, "ts": 0, "v": "1"}
    packed: bytes = msgpack.packb(event)
    return packed


async def _produce(redis: "Redis", runs: int, steps: int) -> None:
    for first in range(0, runs, SEND_BATCH):
        pipe = redis.pipeline(transaction=False)
        for number in range(first, min(first + SEND_BATCH, runs)):
            pipe.execute_command("XADD", STREAM, "*", "e", _event(number, steps))
        await pipe.execute()


async def _trickle(redis: "Redis", runs: int, gap: float) -> None:
    for number in range(runs):
        await redis.execute_command("XADD", STREAM, "*", "e", _event(number, 0))
        await asyncio.sleep(gap)


async def _coordinate(redis: "Redis", fan_out: str) -> None:
    read = ("XREADGROUP", "GROUP", GROUP, "c1", "COUNT", READ_BATCH, "BLOCK", BLOCK_MS)
    while True:
        reply = await redis.execute_command(*read, "STREAMS", STREAM, ">")
        if not reply:
            continue
        args: list[Any] = []
        for entry_id, fields in _entries(reply):
            args += (entry_id, fields)
        head = ("EVALSHA", fan_out, 3, QUEUE, STREAM, BELL, GROUP)
        await redis.execute_command(*head, time.monotonic_ns() // 1_000_000, RUN, *args)


def _entries(reply: Any) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a reply of one stream: a list in RESP2, a dictionary in RESP3."""
    batches = reply.values() if isinstance(reply, dict) else [batch for _, batch in reply]
    for batch in batches:
        for entry_id, fields in batch:
            yield entry_id, fields[b"e"] if isinstance(fields, dict) else fields[1]


def _client(url: str) -> "Redis":
    # Without a timeout of its own the client arms none for each reply.
    return Redis.from_url(url, protocol=2, socket_timeout=None)


def _settle(seat: Seat, url: str, main: Callable[["Redis"], Coroutine[Any, Any, None]]) -> None:
    """Connect, wait at the gate, then run `main` in this process."""

    async def body() -> None:
        async with _client(url) as redis:
            await redis.ping()
            seat.arrive()
            await main(redis)

    uvloop.run(body())


def _producer(seat: Seat, url: str, runs: int, steps: int) -> None:
    _settle(seat, url, lambda redis: _produce(redis, runs, steps))


def _trickler(seat: Seat, url: str, runs: int, gap: float) -> None:
    _settle(seat, url, lambda redis: _trickle(redis, runs, gap))


def _coordinator(seat: Seat, url: str) -> None:
    async def main(redis: "Redis") -> None:
        await _coordinate(redis, await redis.script_load(FAN_OUT))

    _settle(seat, url, main)


def _worker(seat: Seat, url: str, starts: Any) -> None:
    async def main(redis: "Redis") -> None:
        await Worker(redis, await redis.script_load(LEASE), seat, starts).run()

    _settle(seat, url, main)


async def _prepare(url: str) -> None:
    async with _client(url) as redis:
        try:
            await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def throughput(url: str, runs: int, steps: int) -> float:
    """Runs a second, from the first send to the last run recorded, one worker process.

    >>> throughput("redis://127.0.0.1:6379/0", 20_000, 1)  # doctest: +SKIP
    17000.0
    """
    asyncio.run(_prepare(url))
    with Fleet(workers=1) as fleet:
        fleet.servant(_coordinator, url)
        fleet.worker(_worker, url, RawArray(c_longlong, runs))
        fleet.producer(_producer, url, runs, steps)
        return runs / fleet.run(runs)


def latency(url: str, runs: int = 300, gap: float = 0.01) -> list[float]:
    """Milliseconds from send to the function's first line in an idle system, sorted."""
    asyncio.run(_prepare(url))
    starts = RawArray(c_longlong, runs)
    with Fleet(workers=1) as fleet:
        fleet.servant(_coordinator, url)
        fleet.worker(_worker, url, starts)
        fleet.producer(_trickler, url, runs, gap)
        fleet.run(runs)
    # The first ones pay for connections that open on first use.
    return sorted(nanos / 1e6 for nanos in list(starts)[runs // 10 :])


def section(bench: Bench) -> Iterator[Row]:
    """Rows `bare/0 steps` … `bare/10 steps` in runs/s and `bare/start p50|p99` in ms."""
    for steps, runs in SIZES.items():
        measure = partial(throughput, runs=bench.size(runs), steps=steps)
        yield Row.of("bare", f"{steps} steps", "runs/s", bench.samples(measure))
    with bench.server() as url:
        waits = statistics.quantiles(latency(url), n=100)
    for percent in (50, 95, 99):
        yield Row("bare", f"start p{percent}", waits[percent - 1], "ms", lower=True)
