"""Cluster routing as pure values: key to slot, CLUSTER SLOTS to a table of owners."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, cast

from redis.crc import key_slot

SLOTS: Final = 16_384

Owner = TypeVar("Owner")


def slot_of(key: str) -> int:
    """The slot of a key: of what stands in its first `{…}`, or of all of it.

    slot_of("{ns:0}:runs") == slot_of("{ns:0}:due")
    """
    start = key.find("{")
    if start >= 0:
        end = key.find("}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return _slot(key)


@lru_cache(maxsize=4096)
def _slot(tag: str) -> int:
    return key_slot(tag.encode())


def by_slot(keys: Iterable[str]) -> list[list[str]]:
    """Groups keys so that one command may name all keys of a group, in order of appearance."""
    groups: dict[int, list[str]] = {}
    for key in keys:
        groups.setdefault(slot_of(key), []).append(key)
    return list(groups.values())


class SlotTable(Generic[Owner]):
    """Who owns which slot. An `Owner` is whatever `parse` was told to make of an address."""

    __slots__ = ("_owners", "masters")

    def __init__(self, ranges: Iterable[tuple[int, int, Owner]]) -> None:
        self._owners: list[Owner | None] = [None] * SLOTS
        masters: dict[Owner, None] = {}
        for first, last, owner in ranges:
            masters[owner] = None
            self._owners[first : last + 1] = [owner] * (last + 1 - first)
        self.masters: tuple[Owner, ...] = tuple(masters)

    @classmethod
    def parse(
        cls, reply: Sequence[Any], asked: str, owner: Callable[[str, int], Owner]
    ) -> "SlotTable[Owner]":
        """Reads CLUSTER SLOTS. `asked` is the host that replied: a node that doesn't know its own
        address leaves it empty."""
        ranges: list[tuple[int, int, Owner]] = []
        for first, last, master, *_ in cast("Sequence[tuple[int, int, list[Any]]]", reply):
            host = cast("bytes | None", master[0])
            at = host.decode() if host and host != b"?" else asked
            ranges.append((first, last, owner(at, int(master[1]))))
        return cls(ranges)

    def owner(self, slot: int) -> Owner | None:
        return self._owners[slot]

    def moved(self, slot: int, owner: Owner) -> None:
        """Notes one MOVED reply; the whole table is read again soon after."""
        self._owners[slot] = owner
        if owner not in self.masters:
            self.masters = (*self.masters, owner)
