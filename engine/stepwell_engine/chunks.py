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

    `keep_ms`: how much longer than others its records are kept. `controlled`: whether flow control decides about any of its runs.
    """

    __slots__ = ("acks", "controlled", "keep_ms", "records", "runs", "shard", "size")

    def __init__(self, shard: int, keep_ms: int = 0) -> None:
        self.shard = shard
        self.keep_ms = keep_ms
        self.acks: list[bytes] = []
        self.records: list[tuple[str, bytes]] = []
        self.runs: list[NewRun] = []
        self.size = 0
        self.controlled = False

    def add(self, entry: Entry, runs: Sequence[NewRun], record: bytes) -> None:
        """An entry to acknowledge with what it causes; no record if that is empty.

        An entry of ends says several events: it is acknowledged when all of them are handled.
        """
        if entry.kind != ENDED:
            self.acks.append(entry.sid)
        if record:
            self.records.append((entry.id, record))
            self.size += len(record)
        if runs:
            self.create(runs)

    def create(self, runs: Sequence[NewRun]) -> None:
        """Runs to create."""
        self.runs += runs
        for run in runs:
            self.size += len(run.blob)
            if run.flow:
                self.controlled = True

    @property
    def full(self) -> bool:
        """Whether it should be written before more is added."""
        return (
            len(self.runs) >= _MAX_RUNS or len(self.acks) >= _MAX_ENTRIES or self.size >= _MAX_BYTES
        )

    def parts(self) -> list[list[NewRun]]:
        """Its runs in parts of a size that one call may have; at least one part."""
        runs = self.runs
        if len(runs) <= _MAX_RUNS and self.size <= 2 * _MAX_BYTES:
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
