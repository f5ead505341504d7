"""Does a shard's data hold together? What `stepwell doctor` and the tests ask of every key and every run.

A shard that is being written while it is read looks broken for a moment: there, ask twice and believe what both say.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from stepwell_engine import luapack
from stepwell_engine.audit_gates import KINDS, GateIndex
from stepwell_engine.store.keys import Keys, KeySpec, spec_of

_PAGE: Final = 500  # keys a call
_ENDED: Final = (b"c", b"f", b"k")
_LIVE: Final = (b"q", b"r", b"x")


class Caller(Protocol):
    """What is needed of a `Server`."""

    def call(self, key: str, *args: bytes | str | float) -> Awaitable[Any]:
        """Send one command to the server that has `key`."""
        ...


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: its name, the key or item that breaks it, and what is wrong."""

    rule: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.text}"


@dataclass(slots=True)
class Indexes:
    """Where a shard's indexes say its items are. Checking a run crosses off what it accounts for."""

    due: dict[str, float] = field(default_factory=dict[str, float])
    leases: dict[str, float] = field(default_factory=dict[str, float])
    ended: dict[str, float] = field(default_factory=dict[str, float])
    queues: dict[str, str] = field(default_factory=dict[str, str])
    """item → "fn:key" of its queue, or "!lane" for a suspect"""
    runs_of: dict[str, str] = field(default_factory=dict[str, str])
    """run → function number"""
    waits: dict[tuple[str, bytes], bool] = field(default_factory=dict[tuple[str, bytes], bool])
    paths: dict[tuple[str, bytes], int] = field(default_factory=dict[tuple[str, bytes], int])
    queue_keys: set[str] = field(default_factory=set[str])
    ready_keys: set[str] = field(default_factory=set[str])
    ready_fns: dict[str, str] = field(default_factory=dict[str, str])
    crons: set[str] = field(default_factory=set[str])
    """functions with a cron state, by number"""
    locks: dict[str, str] = field(default_factory=dict[str, str])
    """singleton key → the run that has it"""
    windows: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    """open debounces and batches: function, end"""
    gathered: set[str] = field(default_factory=set[str])
    resuming: set[str] = field(default_factory=set[str])
    """items queued as resumes"""
    gates: GateIndex = field(default_factory=GateIndex)
    found: list[Violation] = field(default_factory=list[Violation])

    def add(self, rule: str, subject: str, text: str) -> None:
        """Note a violation."""
        self.found.append(Violation(rule, subject, text))


async def audit(server: Caller, keys: Keys) -> list[Violation]:
    """All violations of one shard, in no order; memory grows with its indexes, not with its runs' data.

    >>> await audit(store.server, store.keys(0))
    []
    """
    at = Indexes(gates=GateIndex(here=int(keys.root[1:-1].rpartition(":")[2])))
    runs: list[str] = []
    async for page in _pages(server, keys):
        await _check_keys(server, keys, page, at, runs)
    for start in range(0, len(runs), _PAGE):
        names = runs[start : start + _PAGE]
        calls = [server.call(keys.root, "HGETALL", keys.run(run)) for run in names]
        for run, call in zip(names, calls, strict=True):
            flat = await call
            if flat:
                check_run(run, dict(zip(flat[::2], flat[1::2], strict=True)), at)
    check_rest(at)
    return at.found


async def _pages(server: Caller, keys: Keys) -> AsyncIterator[list[str]]:
    # The braces of the hash tag mean nothing in a glob; a namespace holds no other special.
    cursor, seen = b"0", set[str]()
    while True:
        cursor, found = await server.call(
            keys.root, "SCAN", cursor, "MATCH", keys.root + ":*", "COUNT", _PAGE
        )
        page = [name for raw in found if (name := raw.decode()) not in seen]
        seen.update(page)
        if page:
            yield page
        if cursor == b"0":
            return


async def _check_keys(
    server: Caller, keys: Keys, page: Sequence[str], at: Indexes, runs: list[str]
) -> None:
    types = [server.call(key, "TYPE", key) for key in page]
    ttls = [server.call(key, "PTTL", key) for key in page]
    for key, type_call, ttl_call in zip(page, types, ttls, strict=True):
        kind, ttl, spec = (await type_call).decode(), await ttl_call, spec_of(key)
        if kind == "none" or ttl == -2:
            continue
        suffix = key[len(keys.root) + 1 :]
        if spec is None:
            at.add("unknown key", key, f"a {kind} that no kind of key in store/keys.py matches")
            continue
        if kind != spec.type:
            at.add("wrong type", key, f"a {kind}, but {spec.name} is a {spec.type}")
            continue
        if spec.life == "ttl" and ttl < 0:
            at.add("no TTL", key, f"{spec.name} lives for ever")
        elif spec.life != "ttl" and ttl >= 0 and spec.name != "singleton":
            at.add("unexpected TTL", key, f"{spec.name} ends in {ttl} ms")
        if spec.name == "run":
            runs.append(suffix[2:])
        elif spec.name == "cron":
            at.crons.add(suffix[5:])
        elif spec.name == "singleton":
            # One with a TTL is nobody's any more: it tells what was newest.
            if ttl < 0:
                at.locks[suffix[3:]] = (await server.call(key, "GET", key)).decode()[:26]
        elif spec.name == "window":
            number, end = await server.call(key, "HMGET", key, "f", "due")
            at.windows[suffix[4:]] = number.decode(), float(end)
        elif spec.name == "gathered":
            at.gathered.add(suffix[4:])
        elif spec.name in KINDS:
            await _load_gate(server, key, spec, suffix, at)
        elif spec.name in _LOADERS:
            await _load(server, key, spec.name, suffix, at)


async def _load_gate(server: Caller, key: str, spec: KeySpec, suffix: str, at: Indexes) -> None:
    read = ("HGETALL", key) if spec.type == "hash" else ("ZRANGE", key, 0, -1, "WITHSCORES")
    flat = await server.call(key, *read)
    at.gates.load(spec.name, suffix, flat[::2], flat[1::2])


async def _load(server: Caller, key: str, name: str, suffix: str, at: Indexes) -> None:
    if name == "wait_paths":
        flat = await server.call(key, "HGETALL", key)
        for path, count in zip(flat[::2], flat[1::2], strict=True):
            at.paths[suffix[3:], path] = int(count)
        return
    flat = await server.call(key, "ZRANGE", key, 0, -1, "WITHSCORES")
    for member, score in zip(flat[::2], flat[1::2], strict=True):
        _note(at, name, suffix, member, float(score))


_LOADERS: Final = frozenset(
    [
        "due",
        "leases",
        "ended",
        "resumes",
        "starts",
        "suspects",
        "fn_runs",
        "waits",
        "wait_paths",
        "ready_keys",
        "ready_fns",
    ]
)


def _note(at: Indexes, name: str, suffix: str, member: bytes, score: float) -> None:
    if name == "waits":
        at.waits[suffix[3:], member] = True
        return
    item = member.decode()
    if name == "due":
        at.due[item] = score
    elif name == "leases":
        at.leases[item] = score
    elif name == "ended":
        at.ended[item] = score
    elif name == "fn_runs":
        at.runs_of[item] = suffix[2:]
    elif name == "ready_keys":
        at.ready_keys.add(f"{suffix[3:]}:{item}")
    elif name == "ready_fns":
        at.ready_fns[item] = suffix[3:]
    else:
        where = "!" + suffix[4:] if name == "suspects" else suffix[2:-2]
        at.queue_keys.add(where)
        if item in at.queues:
            at.add("queued twice", item, f"in {at.queues[item]} and in {where}")
        at.queues[item] = where
        if suffix.endswith(":r"):
            at.resuming.add(item)


def check_run(run: str, fields: dict[bytes, bytes], at: Indexes) -> None:
    """Hold one run's hash against the indexes, and cross off there what it accounts for."""
    status = fields.get(b"st")
    fn = fields.get(b"f", b"").decode()
    if at.runs_of.pop(run, None) != fn:
        at.add("not listed", run, f"not among the runs of function {fn!r}")
    pendings = {name[2:].decode(): raw for name, raw in fields.items() if name.startswith(b"p:")}
    if int(fields.get(b"np", 0)) != len(pendings):
        at.add("np", run, f"np is {fields.get(b'np')!r}, but {len(pendings)} pendings are there")
    if status in _ENDED:
        _check_ended(run, fields, pendings, at)
        return
    if status not in _LIVE:
        at.add("status", run, f"st is {status!r}")
        return
    if run in at.ended:
        at.ended.pop(run)
        at.add("ended", run, f"st is {status!r}, but it is among the ended runs")
    if status == b"x" and at.due.pop(f"{run}:!", None) is None:
        at.add("limbo", run, "cancelling, but no timer ends the grace period")
    lock = fields.get(b"sg", b"").decode()
    if at.locks.get(lock) == run:
        at.locks.pop(lock)
    if status != b"q":
        at.gates.hold(run, fields.get(b"k", b"").decode(), run=True, add=at.add)
    _check_root(run, fields, len(pendings), at)
    _check_cancels(run, fields, at)
    _check_timeouts(run, fields, at)
    for step, raw in pendings.items():
        _check_pending(run, step, luapack.read(raw), fields, at)
    for name, token in fields.items():
        if name.startswith(b"l:") and token and name[2:].decode() not in pendings:
            at.add("lease", run, f"step {name[2:].decode()} is leased but not pending")


def _check_ended(
    run: str, fields: dict[bytes, bytes], pendings: dict[str, bytes], at: Indexes
) -> None:
    if at.ended.pop(run, None) is None:
        at.add("ended", run, "not among the ended runs, so retention never finds it")
    if fields.get(b"rs", b"") or pendings:
        at.add("ended", run, f"root state {fields.get(b'rs')!r}, pendings {sorted(pendings)}")
    if any(name.startswith(b"cn:") or name == b"hd" for name in fields):
        at.add("cancel", run, "ended, but still registered to be cancelled, or held for it")
    for name, token in fields.items():
        if (name == b"l" or name.startswith(b"l:")) and token:
            at.add("lease", run, f"ended, but {name.decode()} still has a token")


def _check_cancels(run: str, fields: dict[bytes, bytes], at: Indexes) -> None:
    """Each registration `cn:<i>` is in the index of waits, as step `!<i>`; flag c<n> takes them out again."""
    found = {name[3:]: raw for name, raw in fields.items() if name.startswith(b"cn:")}
    if b"hd" in fields and not (found and fields[b"st"] == b"q" and fields.get(b"rs") == b"d"):
        at.add("held", run, f"held for its cancels, but rs is {fields.get(b'rs')!r}")
    if int(fields.get(b"fx", b"").partition(b"c")[2] or 0) != len(found):
        at.add("cancel", run, f"fx is {fields.get(b'fx')!r}, registrations are {sorted(found)}")
    for number, raw in found.items():
        _since, _until, name, prefix, path, _details = luapack.read(raw)
        member = prefix + f"{run}:!".encode() + number
        if at.waits.pop((name.decode(), member), None) is None:
            at.add("cancel", run, f"not in the index of {name.decode()!r}: no event finds it")
        at.paths[name.decode(), path] = at.paths.get((name.decode(), path), 0) - 1


def _check_timeouts(run: str, fields: dict[bytes, bytes], at: Indexes) -> None:
    """`<run>:<`, as `tl` says it, until it begins, `<run>:>` from then until it ends or is past it."""
    status = fields[b"st"]
    if fields.get(b"tb", b"0") != b"0" and status == b"q":
        latest, found = float(fields.get(b"tl", 0)), at.due.pop(f"{run}:<", None)
        if latest != found:
            at.add("timeout", run, f"may begin until {latest:.0f}, but `due` has {found}")
    if fields.get(b"tf", b"0") == b"0" or status == b"q":
        return
    if not at.due.pop(f"{run}:>", None) and status == b"r":
        at.add("timeout", run, "may be late to end, but `due` has no moment for it")


def _check_root(run: str, fields: dict[bytes, bytes], pendings: int, at: Indexes) -> None:
    state, token = fields.get(b"rs"), fields.get(b"l")
    if state == b"q":
        _check_queue(run, fields, at)
    elif state == b"d":
        if at.due.pop(run, None) is None:
            at.add("limbo", run, "waits for a time, but is not in `due`")
    elif state == b"l":
        if not token:
            at.add("lease", run, "leased without a token")
        _check_lease(run, fields, at)
    elif state == b"p":
        if not pendings:
            at.add("limbo", run, "parked with nothing pending")
    else:
        at.add("limbo", run, f"root state {state!r}")
    if state != b"l" and token:
        at.add("lease", run, f"root state {state!r}, but `l` still has a token")


def _check_lease(item: str, fields: dict[bytes, bytes], at: Indexes) -> None:
    at.gates.hold(item, fields.get(b"k", b"").decode(), run=False, add=at.add)
    if at.leases.pop(item, None) is None:
        at.add("limbo", item, "leased, but the lease has no end")


def _check_queue(item: str, fields: dict[bytes, bytes], at: Indexes) -> None:
    fn, key, lane = (fields.get(name, b"").decode() for name in (b"f", b"k", b"a"))
    where = at.queues.pop(item, None)
    if where is None:
        at.add("limbo", item, "queued, but in no queue")
    elif where == f"!{lane}":
        # It goes on before others of its key: what it held is still its own.
        at.gates.hold(item, key, run=False, add=at.add)
    elif where != f"{fn}:{key}":
        at.add("queue", item, f"in the queue {where}, not in {fn}:{key}")
    elif at.gates.waits(where, start=item not in at.resuming):
        return
    elif where not in at.ready_keys or at.ready_fns.get(fn) != lane:
        at.add("not ready", item, f"its queue {where} gets no turns in lane {lane!r}")


def _check_pending(
    run: str, step: str, record: list[Any], fields: dict[bytes, bytes], at: Indexes
) -> None:
    item, kind, due = f"{run}:{step}", record[0], record[1]
    if kind == b"P":
        places = [item in at.queues, item in at.due, bool(fields.get(b"l:" + step.encode()))]
        if sum(places) != 1:
            at.add("limbo", item, f"planned; (queued, in due, leased) = {places}")
        elif places[0]:
            _check_queue(item, fields, at)
        elif places[1]:
            at.due.pop(item)
        else:
            _check_lease(item, fields, at)
        return
    if (at_ms := at.due.pop(item, None)) != due:
        at.add("limbo", item, f"pending until {due}, but `due` has {at_ms}")
    if kind == b"w":
        name, prefix, path = record[4].decode(), record[5], record[6]
        if at.waits.pop((name, prefix + item.encode()), None) is None:
            at.add("wait", item, f"not in the index of {name!r}: no event finds it")
        at.paths[name, path] = at.paths.get((name, path), 0) - 1


def check_rest(at: Indexes) -> None:
    """What no run accounted for."""
    for fn in at.crons:
        if at.due.pop(f"%{fn}", None) is None:
            at.add("cron", fn, "has crons, but no moment in `due` to look at them")
    for window, (fn, end) in at.windows.items():
        if at.due.pop(item := f"~{fn}:{window}", None) != end:
            at.add("window", item, f"open until {end}, but `due` says otherwise")
    for window in at.gathered - at.windows.keys():
        at.add("window", window, "has events, but is not open")
    for lock, run in at.locks.items():
        at.add("lock", lock, f"belongs to {run}, which is over or knows nothing of it")
    at.gates.rest(at.queue_keys, at.ready_keys, at.due, at.add)
    for rule, left in (
        ("due", at.due), ("leases", at.leases), ("ended", at.ended), ("queues", at.queues), ("runs", at.runs_of),
    ):  # fmt: skip
        for item, value in left.items():
            at.add("stray", item, f"in {rule} ({value}), but its run doesn't say so")
    for name, member in at.waits:
        at.add("stray", f"wait for {name}", f"{member!r} is indexed, but nothing is pending")
    for (name, path), count in at.paths.items():
        if count:
            at.add("count", f"wait for {name}", f"path {path!r} counts {count} too many")
    for entry in at.ready_keys - at.queue_keys:
        at.add("ready", entry, "the queue gets turns but has no items")
    for fn in at.ready_fns.keys() - {entry.partition(":")[0] for entry in at.ready_keys}:
        at.add("ready", fn, "the function gets turns but has no queue")
