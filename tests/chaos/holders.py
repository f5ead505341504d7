"""Who held a slot, and when: as the witness saw step bodies, and as runs were recorded."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.oracle import Ended
from tests.chaos.witness import Line

_LOST: Final = re.compile(r"^X(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Held:
    """A time in which somebody held a slot, ns."""

    start: int
    end: int
    who: str


def most(held: Iterable[Held]) -> tuple[int, list[str]]:
    """The most holders there were at one moment, and who they were."""
    some = [h for h in held if h.end > h.start]
    events = [(h.start, 1, h.who) for h in some] + [(h.end, 0, h.who) for h in some]
    now: list[str] = []
    top: list[str] = []
    for _, begins, who in sorted(events):
        if begins:
            now.append(who)
            if len(now) > len(top):
                top = list(now)
        else:
            now.remove(who)
    return len(top), top


def bodies(runs: Mapping[str, Ended], lines: Sequence[Line]) -> dict[str, list[tuple[str, Held]]]:
    """Function → (g, time) of each step body, as long as the lease under which it ran was live.

    A process that is stopped or cut off may go on with a body whose lease is over: to its run's history that is X and the moment.
    """
    ends = {line.nonce: line.ns for line in lines if line.kind == "end"}
    entered: dict[tuple[str, str], int] = {}
    for line in lines:
        if line.kind == "enter":
            entered.setdefault((line.run, line.token), line.ns)
    found: dict[str, list[tuple[str, Held]]] = defaultdict(list)
    for line in lines:
        run = runs.get(line.run)
        if line.kind != "step" or run is None:
            continue
        over = [int(ms) for ms in _LOST.findall(run.fields.get(b"h", b"").decode())]
        over.append(int(run.fields.get(b"ea", b"0")))
        leased = entered.get((line.run, line.token), line.ns)
        lost = min((ms * 1_000_000 for ms in over if ms * 1_000_000 >= leased), default=leased)
        end = min(ends.get(line.nonce, lost), lost)
        if end > line.ns:
            who = f"{line.run}/{line.step}/{line.token}"
            found[run.fn].append((str(run.data.get("g")), Held(line.ns, end, who)))
    return found


def spans(runs: Iterable[Ended]) -> list[Held]:
    """From a run's start to its end, as recorded."""
    return [
        Held(int(run.fields[b"sa"]), int(run.fields[b"ea"]), run.run)
        for run in runs
        if b"sa" in run.fields
    ]
