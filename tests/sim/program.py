"""Random programs of steps, as plain values: what hypothesis draws, what an event carries, what the model reads.

Time is in minutes. All lengths are multiples of ten, and each event comes at a minute with a last digit of its own: nothing
ever happens in the same minute as something that it could race with.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st

ATTEMPTS: Final = 3
AGAIN: Final = 10
"""Minutes between the attempts of a step."""

Op: TypeAlias = dict[str, Any]
"""JSON, since it travels in an event: {"do": run | sleep | wait | parallel | invoke, ...}."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What happens to a run from outside: an event, or (`name` None) a new worker takes the place of the old one."""

    at: int
    name: str | None
    n: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """A program, the kind of function that plays it, and what comes from outside meanwhile."""

    fn: str
    ops: tuple[Op, ...]
    outside: tuple[Outside, ...]


_tens = st.integers(1, 9).map(lambda n: n * 10)
_names = st.sampled_from(["sim/a", "sim/b"])

_runs = st.fixed_dictionaries(
    {"do": st.just("run"), "fails": st.integers(0, ATTEMPTS), "final": st.booleans()}
)
_sleeps = st.fixed_dictionaries({"do": st.just("sleep"), "for": _tens})
_waits = st.fixed_dictionaries(
    {
        "do": st.just("wait"),
        "for": _tens,
        "name": _names,
        "n": st.one_of(st.none(), st.integers(0, 2)),
    }
)
_leaves = st.one_of(_runs, _sleeps, _waits)


def _lists(ops: st.SearchStrategy[Op], most: int) -> st.SearchStrategy[list[Op]]:
    return st.lists(ops, min_size=1, max_size=most)


_invokes = st.fixed_dictionaries(
    {"do": st.just("invoke"), "ops": _lists(_leaves, 3), "fatal": st.booleans()}
)
_parallels = st.fixed_dictionaries(
    {
        "do": st.just("parallel"),
        "branches": st.lists(_lists(st.one_of(_leaves, _invokes), 3), min_size=2, max_size=3),
    }
)
_programs = _lists(st.one_of(_leaves, _invokes, _parallels), 5)

FUNCTIONS: Final = ("plain", "buffered", "spread", "sync")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A program and up to nine things from outside, each in a minute of its own."""
    moments = draw(st.lists(st.integers(0, 15), max_size=9))
    outside: list[Outside] = []
    for digit, moment in enumerate(moments, 1):
        name = draw(st.one_of(st.none(), _names, _names))
        outside.append(Outside(moment * 10 + digit, name, draw(st.integers(0, 2))))
    ops = draw(_programs)
    return Case(
        draw(st.sampled_from(FUNCTIONS)), tuple(ops), tuple(sorted(outside, key=lambda o: o.at))
    )
