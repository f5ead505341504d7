"""What a program does, in plain Python: its output, its end, and when each of its callbacks is called."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.sim.program import AGAIN, ATTEMPTS, Op, Outside


@dataclass
class Played:
    """`calls`: (minute, path of the step), one for each attempt."""

    outside: Sequence[Outside]
    calls: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def ops(self, ops: Sequence[Op], at: int, path: str) -> tuple[list[Any], int]:
        """Play operations in turn from minute `at`: what they give, and when the last is over."""
        results: list[Any] = []
        for index, op in enumerate(ops):
            result, at = self._op(op, at, f"{path}{index}")
            results.append(result)
        return results, at

    def _op(self, op: Op, at: int, path: str) -> tuple[Any, int]:
        match op["do"]:
            case "run":
                return self._run(op, at, path)
            case "sleep":
                return None, at + op["for"]
            case "wait":
                return self._wait(op, at)
            case "parallel":
                ends = [
                    self.ops(branch, at, f"{path}.{n}.") for n, branch in enumerate(op["branches"])
                ]
                return [results for results, _ in ends], max(end for _, end in ends)
            case "invoke":
                results, end = self.ops(op["ops"], at, f"{path}.child.")
                return "child failed" if op["fatal"] else results, end
            case other:
                raise AssertionError(other)

    def _run(self, op: Op, at: int, path: str) -> tuple[Any, int]:
        for attempt in range(ATTEMPTS):
            self.calls.append((at, path))
            if attempt >= op["fails"]:
                return path, at
            if op["final"] or attempt + 1 == ATTEMPTS:
                break
            at += AGAIN
        return "failed", at

    def _wait(self, op: Op, at: int) -> tuple[Any, int]:
        for event in self.outside:
            fits = event.name == op["name"] and op["n"] in (None, event.n)
            if fits and at < event.at < at + op["for"]:
                return event.at, event.at
        return None, at + op["for"]
