"""What a section of `make bench` gets and gives: a `Bench` to measure with, `Row`s as results."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a row: of its value, or of its ratio to `Row.against`.

    `Goal(">=", 0.5)`: at least half of the other row's value. `Goal("<=", 50, of="value")`: at
    most 50 of the row's own unit.
    """

    sign: Literal["<=", ">="]
    bound: float
    of: Literal["ratio", "value"] = "ratio"

    def met(self, value: float, ratio: float | None) -> bool | None:
        """Whether the goal is met; None if its other row was not measured."""
        measured = value if self.of == "value" else ratio
        if measured is None:
            return None
        return measured <= self.bound if self.sign == "<=" else measured >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.sign == '<=' else '≥'} {self.bound:g}{'x' * (self.of == 'ratio')}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `against` is the `key` of the row it is divided by in the table."""

    section: str
    name: str
    value: float
    unit: str
    samples: tuple[float, ...] = ()
    against: str | None = None
    goal: Goal | None = None
    lower: bool = False
    """Whether less is better."""
    note: str = ""

    @property
    def key(self) -> str:
        return f"{self.section}/{self.name}"

    @classmethod
    def of(
        cls,
        section: str,
        name: str,
        unit: str,
        samples: Sequence[float],
        *,
        against: str | None = None,
        goal: Goal | None = None,
        lower: bool = False,
        note: str = "",
    ) -> "Row":
        """The median of repeated measurements, which are kept beside it."""
        value = statistics.median(samples)
        return cls(section, name, value, unit, tuple(samples), against, goal, lower, note)


@dataclass(frozen=True, slots=True)
class Bench:
    """The settings of one `make bench`.

    `server()` opens an empty server without persistence and gives its URL:

        with bench.server() as url:
            ...
    """

    server: Callable[[], AbstractContextManager[str]]
    repeat: int = 3
    scale: float = 1.0

    def size(self, count: int, least: int = 100) -> int:
        """`count` scaled by `--scale`, at least `least`."""
        return max(least, round(count * self.scale))

    def samples(self, measure: Callable[[str], float]) -> list[float]:
        """`measure(url)` repeated, each time on a fresh server."""
        results: list[float] = []
        for _ in range(self.repeat):
            with self.server() as url:
                results.append(measure(url))
        return results


@dataclass(frozen=True, slots=True)
class Section:
    """A named part of the benchmark; `run` yields rows as it goes."""

    name: str
    run: Callable[[Bench], Iterator[Row]]
    about: str
