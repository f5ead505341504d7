"""The part of the audit that is about gates: who holds slots, which queues are parked, and what other shards were asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

KINDS: Final = frozenset(["slots", "permits", "kept", "parked", "parks", "asks", "flow"])
"""The kinds of keys it reads, as store/keys.py names them."""

Add = Callable[[str, str, str], None]

_STEPS: Final = frozenset("cC")
_RUNS: Final = frozenset("rRs")
_SHARED: Final = frozenset("CR")


class Gate(NamedTuple):
    """One gate of a queue key."""

    kind: str
    id: str


def gates_of(key: str) -> list[Gate]:
    """The gates of a queue key (limits/keys.py).

    >>> gates_of("c0abc,t-xyz,w2")
    [Gate(kind='c', id='abc'), Gate(kind='t', id='xyz')]
    """
    return [Gate(part[0], part[2:]) for part in key.split(",") if part and part[0] != "w"]


def home_of(gate: Gate, shards: int, here: int) -> int:
    """The shard that has a gate's slots: concurrency.lua's home_of."""
    if gate.kind not in _SHARED or shards < 2:
        return here
    number = 0
    for char in gate.id[:8]:
        number = (number * 31 + ord(char)) % 65521
    return number % shards


@dataclass(slots=True)
class GateIndex:
    """What a shard's keys say of its gates. Checking a run crosses off the slots it accounts for."""

    here: int = 0
    slots: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    held: dict[str, int] = field(default_factory=dict[str, int])
    permits: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    kept: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """gate → queues `fn:key` that a permit is kept for"""
    asks: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    lines: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """gate → who waits for it: `fn:key`, or `@permit` of another shard"""
    parks: dict[str, str] = field(default_factory=dict[str, str])
    """`fn:key` → w or s, and the gate"""
    shards: dict[str, int] = field(default_factory=dict[str, int])
    """function → number of shards"""
    unfinished: set[str] = field(default_factory=set[str])
    """functions whose parked keys have not all heard of a change"""

    def load(
        self, name: str, suffix: str, members: Sequence[bytes], values: Sequence[bytes]
    ) -> None:
        """Take the members of a key in; `values`: of a hash."""
        _, _, owner = suffix.partition(":")
        texts = [member.decode() for member in members]
        if name == "slots":
            self.slots[owner] = set(texts)
            self.held[owner] = len(texts)
        elif name == "permits":
            self.permits[owner] = set(texts)
        elif name == "kept":
            self.kept[owner] = set(texts)
        elif name == "asks":
            self.asks[owner] = set(texts)
        elif name == "parked":
            self.lines[owner] = set(texts)
        elif name == "parks":
            self.parks |= {f"{owner}:{t}": v.decode() for t, v in zip(texts, values, strict=True)}
        else:
            flow = dict(zip(texts, values, strict=True))
            self.shards[owner] = int(flow.get("n", b"1"))
            if "d" in flow:
                self.unfinished.add(owner)

    def hold(self, item: str, key: str, *, run: bool, add: Add) -> None:
        """An item is leased or a suspect, or (`run`) a run has begun: it has its slots."""
        for gate in gates_of(key):
            if gate.kind not in (_RUNS if run else _STEPS):
                continue
            holders = self.slots.get(gate.id, set())
            if item in holders:
                holders.discard(item)
            else:
                add("slot", item, f"goes on without a slot of gate {gate.kind} {gate.id}")

    def waits(self, queue: str, *, start: bool) -> bool:
        """Whether a queue gets no turns for its starts (or its resumes) as it is parked."""
        state = self.parks.get(queue, "")
        return state.startswith("w") or (start and state.startswith("s"))

    def rest(self, queues: set[str], ready: set[str], due: dict[str, float], add: Add) -> None:
        """What no run accounted for. Moments of throttles are taken out of `due`."""
        timed = {item[1:] for item in due if item.startswith("*")}
        for gate in timed:
            due.pop(f"*{gate}")
        for gate, holders in self.slots.items():
            for holder in holders:
                if not holder.startswith("@"):
                    add("slot", holder, f"holds a slot of gate {gate}, but is not at work")
        self._parked(queues, timed, add)
        self._line_of_others(add)
        self._away(add)
        self._kept(queues, ready, add)

    def _parked(self, queues: set[str], timed: set[str], add: Add) -> None:
        for queue, state in self.parks.items():
            gates = [g for g in gates_of(queue.partition(":")[2]) if g.id == state[1:]]
            if queue not in queues:
                add("parked", queue, "parked, but it has no items")
            if not gates or queue not in self.lines.get(state[1:], ()):
                add("parked", queue, f"said to wait for gate {state[1:]}, which does not know it")
            elif gates[0].kind == "t" and gates[0].id not in timed:
                add("parked", queue, "waits for a throttle that has no moment in `due`")
        for gate, queue in self._lined():
            if self.parks.get(queue, "")[1:] != gate:
                add("parked", queue, f"in the line of gate {gate}, but said to wait elsewhere")

    def _lined(self) -> Iterator[tuple[str, str]]:
        for gate, line in self.lines.items():
            for member in line:
                if not member.startswith("@"):
                    yield gate, member

    def _line_of_others(self, add: Add) -> None:
        mine = f"{self.here}-"
        for gate in self.lines.keys() | self.asks.keys():
            lined = {m[1:] for m in self.lines.get(gate, ()) if m.startswith("@")}
            asked = {p for p in self.asks.get(gate, ()) if not p.startswith(mine)}
            for permit in lined ^ asked:
                add("permit", permit, f"in line for gate {gate} without a limit, or the reverse")

    def _away(self, add: Add) -> None:
        waiting: dict[str, int] = {}
        for gate_id, queue in self._lined():
            fn, _, key = queue.partition(":")
            for gate in gates_of(key):
                shards = self.shards.get(fn, 1)
                if gate.id == gate_id and home_of(gate, shards, self.here) != self.here:
                    waiting[gate_id] = waiting.get(gate_id, 0) + 1
        for gate_id, count in waiting.items():
            spare = len(self.permits.get(gate_id, ())) - self.held.get(gate_id, 0)
            spare -= len(self.kept.get(gate_id, ()))
            asked = len(self.asks.get(gate_id, ()))
            if asked + max(spare, 0) < count:
                text = f"{count} queues wait here, {asked} permits are asked for, {spare} unused"
                add("permit", gate_id, text)

    def _kept(self, queues: set[str], ready: set[str], add: Add) -> None:
        """A permit is kept for queues that wait for another gate, or are on their way."""
        for gate_id, kept in self.kept.items():
            if len(kept) > len(self.permits.get(gate_id, ())):
                add("kept", gate_id, f"{len(kept)} permits are kept, more than there are")
            for queue in kept:
                fn, _, key = queue.partition(":")
                shards = self.shards.get(fn, 1)
                gates = [g for g in gates_of(key) if g.id == gate_id]
                if queue not in queues or not (queue in self.parks or queue in ready):
                    add(
                        "kept", queue, f"gate {gate_id} keeps a permit for it, but it does not wait"
                    )
                elif not gates or home_of(gates[0], shards, self.here) == self.here:
                    add(
                        "kept", queue, f"gate {gate_id} keeps a permit for it that it does not need"
                    )
