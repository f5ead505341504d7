"""What the transitions take and give: events, runs, leases, and how the scripts spell them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

Arg = bytes | str | int | float


class NewEvent(NamedTuple):
    """An event on its way into a stream. `kind`: u user · v invoked (extra = target). `id_hash` '' = no de-duplication."""

    name: str
    encoded: bytes
    entropy: str
    id_hash: str = ""
    kind: str = "u"
    extra: bytes = b""


class NewRun(NamedTuple):
    """A run to create: where it goes, what it was started by, and when it may start (ms, 0 = now)."""

    run_id: str
    number: str
    lane: str
    blob: bytes
    start_ms: int
    created_ms: int
    no_emit: bool = False
    parent: str = ""
    key: str = ""
    flow: bytes = b""
    """what its function's flow control asks of admit.lua, packed; empty: it is simply created"""
    order: int = 0
    """its place among those of the same ms, 0-999"""


# What runs of one kind share: number, lane, start_ms, no_emit, parent, key.
_KIND = itemgetter(1, 2, 4, 6, 7, 8)


def run_args(runs: Sequence[NewRun], *, flow: bool = False) -> list[Arg]:
    """Runs as fanout.lua takes them, or with `flow` admit.lua: consecutive ones of one kind under one head."""
    args: list[Arg] = []
    for (number, lane, start, no_emit, parent, key), group in groupby(runs, _KIND):
        many = list(group)
        args += (number, lane, start, "1" if no_emit else "", parent, key, len(many))
        for run in many:
            place = f"{run.created_ms}.{run.order:03d}" if run.order else run.created_ms
            args += (run.run_id, run.blob, place)
            if flow:
                args.append(run.flow)
    return args


class Candidates(NamedTuple):
    """A page of waits: (member, pending record, the run's event blob) of each, and whether there may be more."""

    rows: list[tuple[bytes, bytes, bytes]]
    more: bool


@dataclass(slots=True)
class Guard:
    """What a write is guessed to find: the registry at that version, and nobody who waits for those names.

    Where somebody does, the write that did not happen sets `awaited`: for each name the paths in use.
    """

    version: bytes
    names: Sequence[str]
    awaited: list[list[str]] | None = None

    def args(self) -> list[Arg]:
        return [self.version, *self.names]

    def holds(self, reply: int | list[Any]) -> bool:
        """Whether a reply of fanout.lua or admit.lua tells of a write."""
        if isinstance(reply, int):
            return reply >= 0
        if reply and isinstance(reply[0], list):
            self.awaited = [[path.decode() for path in paths] for paths in reply]
            return False
        return reply != [b"-1"]


class Leased(NamedTuple):
    """One leased item: `step` is '' for the root. `fields` is the run's hash, empty when it must be read apart."""

    run_id: str
    step: str
    token: str
    suspect: bool
    fields: dict[bytes, bytes]

    @property
    def item(self) -> str:
        """Its name in queues and leases."""
        return f"{self.run_id}:{self.step}" if self.step else self.run_id


class Expired(NamedTuple):
    """A lease past its time."""

    item: str
    token: str
    number: str
    worker: str
    alive: bool
    suspect: bool
    crashes: int
    started: bytes


@dataclass(frozen=True, slots=True)
class DueReply:
    """What due.lua did and when to call it again (ms, None = nothing scheduled). `ticks`: functions whose cron ticks are due.

    `windows`: debounces and batches that are over, for `close`.
    """

    handled: int
    late_ms: int
    next_due: float | None
    next_expiry: float | None
    now_ms: int
    ticks: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()


def pairs(items: Collection[tuple[Arg, Arg]]) -> list[Arg]:
    """Pairs as scripts take them: how many, then each."""
    args: list[Arg] = [len(items)]
    for pair in items:
        args += pair
    return args


def leased(item: list[Any]) -> Leased:
    """Parse one reply row of lease.lua."""
    name: str = item[0].decode()
    flat: list[bytes] = item[3]
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return Leased(name[:26], name[27:], item[1].decode(), item[2] == b"1", fields)


def expired(row: list[Any]) -> Expired:
    """Parse one reply row of expired.lua."""
    item, token, number, worker, alive, suspect, crashes, started = row
    return Expired(
        item.decode(),
        token.decode(),
        number.decode(),
        worker.decode(),
        bool(alive),
        suspect == b"1",
        int(crashes or 0),
        started,
    )


def due_reply(reply: list[Any]) -> DueReply:
    """Parse the reply of due.lua."""
    next_due, next_expiry = (float(at) if at else None for at in reply[2:4])
    ticks, windows = (tuple(name.decode() for name in names) for names in reply[5:7])
    return DueReply(
        int(reply[0]), int(reply[1]), next_due, next_expiry, int(reply[4]), ticks, windows
    )


def texts(flat: list[bytes]) -> dict[str, bytes]:
    """A hash, by its fields as text."""
    return {field.decode(): value for field, value in zip(flat[::2], flat[1::2], strict=True)}
