"""What a batch of events comes to on one shard, in amounts that one call may have."""

from collections.abc import Sequence
from typing import Final

from stepwell_engine.entries import ENDED, Entry
from stepwell_engine.store.transitions import NewRun

# What one call may hold the server for, and send at once.
_MAX_RUNS: Final = 100
_MAX_ENTRIES: Final = 1000
_MAX_BYTES: Final = 8 << 20


class Chunk:
    """One shard's share of a batch, written by one call of fanout.lua or, when it grew large, a few.

    `keep_ms`: how much longer than others its records are kept.
    """

    __slots__ = ("acks", "keep_ms", "records", "runs", "shard", "size")

    def __init__(self, shard: int, keep_ms: int = 0) -> None:
        self.shard = shard
        self.keep_ms = keep_ms
        self._clear()

    def _clear(self) -> None:
        self.acks: list[bytes] = []
        self.records: list[tuple[str, bytes]] = []
        self.runs: list[NewRun] = []
        self.size = 0

    def add(self, entry: Entry, runs: Sequence[NewRun], record: bytes) -> None:
        """An entry to acknowledge with what it causes; no record if that is empty.

        An entry of ends says several events: it is acknowledged when all of them are handled.
        """
        if entry.kind != ENDED:
            self.acks.append(entry.sid)
        if record:
            self.records.append((entry.id, record))
            self.size += len(record)
        self.create(runs)

    def create(self, runs: Sequence[NewRun]) -> None:
        """Runs to create."""
        self.runs += runs
        for run in runs:
            self.size += len(run.blob)

    def split(self) -> "Chunk":
        """What was gathered so far, as a chunk of its own; this one is empty then."""
        other = Chunk(self.shard, self.keep_ms)
        other.acks, other.records, other.runs = self.acks, self.records, self.runs
        self._clear()
        return other

    @property
    def full(self) -> bool:
        """Whether it should be written before more is added."""
        return (
            len(self.runs) >= _MAX_RUNS or len(self.acks) >= _MAX_ENTRIES or self.size >= _MAX_BYTES
        )

    def parts(self) -> list[list[NewRun]]:
        """Its runs in parts of a size that one call may have; at least one part."""
        runs = self.runs
        if len(runs) <= _MAX_RUNS and sum(len(run.blob) for run in runs) <= 2 * _MAX_BYTES:
            return [runs]
        parts: list[list[NewRun]] = [[]]
        size = 0
        for run in runs:
            if parts[-1] and (len(parts[-1]) >= _MAX_RUNS or size + len(run.blob) > _MAX_BYTES):
                parts.append([])
                size = 0
            parts[-1].append(run)
            size += len(run.blob)
        return parts
