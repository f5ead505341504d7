"""Did it end right? Judged by the witness, the producers' journal and the final hashes, not by any one of them alone."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepwell.serde.values import unpack
from stepwell_engine.audit import audit
from stepwell_engine.entries import blob_event
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store
from tests.chaos.flow_app import FUNCTIONS as FLOW
from tests.chaos.scenarios import STATUS, VALUES, Journal, runs_of
from tests.chaos.witness import Line

ENDED: Final = (b"c", b"f", b"k")
FAR_MS: Final = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class Ended:
    """A run as its hash has it at the end."""

    run: str
    fn: str
    event: str
    data: dict[str, Any]
    fields: dict[bytes, bytes]

    @property
    def status(self) -> str:
        return self.fields.get(b"st", b"").decode()

    @property
    def output(self) -> Any:
        return unpack(self.fields[b"o"]) if b"o" in self.fields else None

    def records(self) -> dict[str, Any]:
        """Step id → the value recorded for it, of steps with a body."""
        found: dict[str, Any] = {}
        for name, raw in self.fields.items():
            if name[:2] == b"s:" and raw[:1] == b"d":
                op, step, _, _, _, value = unpack(raw[1:])
                if op == "run":
                    found[step] = value
        return found


async def settle(store: Store, journal: Journal, within: float) -> bool:
    """Wait until all that was journalled has come to runs, all runs have ended and nothing is owed."""
    wanted = Counter[str]()
    for name, _ in journal.sent.values():
        wanted.update(runs_of(name))
    end = time.monotonic() + within
    calm = 0
    while time.monotonic() < end:
        try:
            # Twice: what moved between two looks of one pass would be seen by the next.
            calm = calm + 1 if await _quiet(store, wanted.total()) else 0
            if calm == 2:
                return True
        except Exception as error:
            if "refused" in str(error):
                raise
        await asyncio.sleep(0.03)
    return False


async def _quiet(store: Store, wanted: int) -> bool:
    call = store.server.call
    runs = ended = owed = 0
    numbers = int(await call(store.keys(0).root, "HGET", store.keys(0).build("meta"), "functions"))
    for shard in store.shards:
        keys = shard.keys
        listed = [
            call(keys.root, "ZCARD", keys.build("fn_runs", str(n + 1))) for n in range(numbers)
        ]
        streams = [call(keys.root, "XLEN", stream) for stream in (keys.events, keys.outbox)]
        leases = call(keys.root, "ZCARD", keys.build("leases"))
        # Windows that are open, cron ticks and throttles: what is not due for days is nobody's.
        soon = time.time_ns() // 1_000_000 + FAR_MS
        owed += await call(keys.root, "ZCOUNT", keys.build("due"), "-inf", soon)
        ended += await call(keys.root, "ZCARD", keys.build("ended"))
        runs += sum(await asyncio.gather(*listed))
        owed += sum(await asyncio.gather(*streams)) + await leases
    return owed == 0 and runs == ended >= wanted


async def finals(store: Store) -> list[Ended]:
    """Every run of the namespace."""
    registry = Registry(store)
    await registry.refresh()
    found: list[Ended] = []
    for shard in store.shards:
        keys, call = shard.keys, store.server.call
        cursor, names = b"0", set[bytes]()
        while True:
            cursor, page = await call(
                keys.root, "SCAN", cursor, "MATCH", keys.root + ":r:*", "COUNT", 1000
            )
            names.update(page)
            if cursor == b"0":
                break
        for name in sorted(names):
            flat = await call(keys.root, "HGETALL", name.decode())
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            function = registry.numbered(fields.get(b"f", b"").decode())
            blob = fields.get(b"e", b"")
            data = dict(blob_event(blob, 0).data) if blob else {}
            found.append(
                Ended(
                    name.decode().rpartition(":")[2],
                    function.fn if function else "?",
                    blob[:26].decode(),
                    data,
                    fields,
                )
            )
    return found


async def verify(
    store: Store,
    journal: Journal,
    lines: Sequence[Line],
    *,
    stalled: Collection[int] = (),
) -> list[str]:
    """Everything that is wrong, one line each. `stalled`: pids that were stopped for a while.

    A stopped process may begin a step that another recorded meanwhile: it can't know before it asks; what it writes is refused, and that
    is what is checked of it.
    """
    runs = await finals(store)
    problems = [*_outcomes(runs, journal)]
    seen: dict[tuple[str, str], list[Line]] = defaultdict(list)
    entered: dict[tuple[str, str], int] = {}
    for line in lines:
        if line.kind == "step":
            seen[line.run, line.step].append(line)
        elif line.kind == "enter":
            entered.setdefault((line.run, line.token), line.at)
    for run in runs:
        problems += _run(run)
        problems += _steps(run, seen, entered, stalled)
    for shard in store.shards:
        problems += [str(found) for found in await audit(store.server, shard.keys)]
    return problems


def _outcomes(runs: Sequence[Ended], journal: Journal) -> list[str]:
    """Each event whose send returned has exactly its runs; no run comes from nowhere."""
    problems: list[str] = []
    by_event: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        by_event[run.event][run.fn] += 1
    for event_id, (name, _) in journal.sent.items():
        if event_id in journal.flow:
            continue
        have = by_event.get(event_id, Counter[str]())
        want = Counter(fn for fn in runs_of(name) if name == f"chaos/{fn}")
        if have != want:
            problems.append(f"event {event_id} {name}: runs {dict(have)}, not {dict(want)}")
    total = Counter(run.fn for run in runs)
    for parent, child, count in (
        ("parent", "child", 1),
        ("sender", "leaf", 2),
        ("failing", "failing-failure", 1),
    ):
        direct = sum(name == f"chaos/{child}" for name, _ in journal.sent.values())
        if total[child] != total[parent] * count + direct:
            problems.append(f"{total[parent]} runs of {parent} made {total[child]} of {child}")
    sends = Counter[tuple[str, str]]()
    for run in runs:
        key = run.data.get("key")
        if key is None:
            continue
        sends[key, run.fn] += 1
        if key not in journal.tried:
            problems.append(f"run {run.run} of {run.fn}: nobody sent its event {run.event}")
    # Each key is sent once, whatever the producer had to do for it; the leaves' totals are judged above.
    for (key, fn), count in sends.items():
        if count > 1 and fn != "leaf":
            problems.append(f"one send (key {key}) came to {count} runs of {fn}")
    return problems


def _run(run: Ended) -> list[str]:
    where = f"run {run.run} of {run.fn}"
    want = run.status if run.fn in FLOW else STATUS.get(run.fn, "c")
    if run.status not in ("c", "f", "k") or run.status != want:
        history = run.fields.get(b"h", b"").decode()
        error = run.fields.get(b"er", b"")
        return [
            f"{where}: status {run.status!r}, not {want!r}; rs {run.fields.get(b'rs')!r}, error {error!r}, history:\n{history}"
        ]
    if want != "c" or run.fn == "child":
        return []
    output = run.output
    problems: list[str] = []
    if run.fn in VALUES and output["v"] != VALUES[run.fn]:
        problems.append(f"{where}: returned {output['v']}, not {VALUES[run.fn]}")
    recorded = sorted(value["n"] for value in run.records().values())
    if sorted(output["n"]) != recorded:
        problems.append(f"{where}: returned the results {output['n']}, recorded are {recorded}")
    return problems


def _steps(
    run: Ended,
    seen: dict[tuple[str, str], list[Line]],
    entered: dict[tuple[str, str], int],
    stalled: Collection[int],
) -> list[str]:
    """A record is of an execution that was witnessed; none began in an entry that began after it."""
    problems: list[str] = []
    for step, value in run.records().items():
        where = f"run {run.run} of {run.fn}, step {step!r}"
        lines = seen.get((run.run, step), [])
        winner = next((line for line in lines if line.nonce == value["n"]), None)
        if winner is None:
            problems.append(f"{where}: recorded a result that nobody made")
            continue
        for line in lines:
            again = line.at > winner.at and line.pid not in stalled
            # An entry (a call of the function under a lease) that began later was leased later: it was given the record.
            if again and (
                line.token == winner.token or entered.get((run.run, line.token), -1) > winner.at
            ):
                problems.append(f"{where}: ran again after it was recorded: {winner}, then {line}")
    return problems
