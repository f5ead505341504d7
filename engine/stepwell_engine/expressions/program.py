"""A compiled expression: evaluation, matching, and what of it can be looked up in an index."""

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

from stepwell.errors import ExpressionError
from stepwell_engine.expressions.closures import Closure, build
from stepwell_engine.expressions.functions import FUNCTIONS
from stepwell_engine.expressions.index import Equality, canonical, equalities, lookup
from stepwell_engine.expressions.nodes import Call, Name, Node, walk
from stepwell_engine.expressions.values import ATOMS, DeferError, FaultError, deep_plain

Event = Mapping[str, Any]

VARIABLES: Final = ("event", "async")
_CACHED: Final = 4096
_TOO_DEEP: Final = "the event is nested too deeply"
_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class Program:
    """A compiled expression. Made by `compile`; immutable and safe to share between threads.

    Example: `compile("event.data.n > 10").matches({"data": {"n": 12}})` is True.
    """

    __slots__ = ("_equalities", "_frame", "_run", "residual", "text", "uses_async", "uses_now")

    def __init__(self, text: str, root: Node) -> None:
        self.text = text
        nodes = list(walk(root))
        self.uses_async: bool = any(node == Name("async") for node in nodes)
        self.uses_now: bool = any(
            isinstance(node, Call) and FUNCTIONS[node.name].timed for node in nodes
        )
        self._equalities, self.residual = equalities(root)
        built = build(root)
        self._run: Closure | None = built[0] if built else None
        self._frame: list[Any] = [None] * built[1] if built else []

    def __repr__(self) -> str:
        return f"Program({self.text!r})"

    @property
    def fast(self) -> bool:
        """Whether closures compute it; if not, each evaluation costs cel-python's 100 µs or so."""
        return self._run is not None

    def evaluate(
        self, event: Event | None, async_: Event | None = None, *, now_ms: int | None = None
    ) -> Any:
        """The expression's value as plain Python; a missing field is None.

        Raises ExpressionError when there is none (`"a" < 1`), ValueError when the expression asks
        for the time and `now_ms` (Unix milliseconds) is not given.
        """
        if self._run is None:
            return self.evaluate_reference(event, async_, now_ms=now_ms)
        if self.uses_now:
            self._check_clock(now_ms)
        try:
            value = self._run([event, async_, now_ms, *self._frame])
            return value if type(value) in ATOMS else deep_plain(value)
        except DeferError:
            return self.evaluate_reference(event, async_, now_ms=now_ms)
        except FaultError as fault:
            raise self._error(fault) from None
        except RecursionError:
            raise self._error(_TOO_DEEP) from None

    def matches(
        self, event: Event | None, async_: Event | None = None, *, now_ms: int | None = None
    ) -> bool:
        """Whether the value is exactly true; an expression without a value matches nothing."""
        try:
            return self.evaluate(event, async_, now_ms=now_ms) is True
        except ExpressionError:
            return False

    def evaluate_reference(
        self, event: Event | None, async_: Event | None = None, *, now_ms: int | None = None
    ) -> Any:
        """`evaluate` by the evaluator of record, with which the closures must agree."""
        from stepwell_engine.expressions import reference

        if self.uses_now:
            self._check_clock(now_ms)
        try:
            return reference.evaluate(self.text, event, async_, now_ms)
        except FaultError as fault:
            raise self._error(fault) from None
        except RecursionError:
            raise self._error(_TOO_DEEP) from None

    def equalities(self) -> tuple[Equality, ...]:
        """The top-level conjuncts that an index can answer; `residual` tells if there is more."""
        return self._equalities

    def bind(self, event: Event) -> tuple[tuple[str, Any], ...] | None:
        """The async path and value of each equality for a trigger event; None if one never holds.

        Example: `compile(match_to_expression("data.id")).bind({"data": {"id": 7}})` gives
        `(("data.id", 7),)`.
        """
        bound: list[tuple[str, Any]] = []
        for equality in self._equalities:
            path = equality.event_path
            try:
                value = equality.literal if path is None else lookup(path, event)
                if canonical(value) is None:
                    return None
            except FaultError:
                return None
            bound.append((equality.async_path, value))
        return tuple(bound)

    def _check_clock(self, now_ms: int | None) -> None:
        if now_ms is None:
            raise ValueError(f"{self.text!r} uses the time: pass now_ms=clock.now_ms()")

    def _error(self, fault: FaultError | str) -> ExpressionError:
        return ExpressionError(f"expression {self.text!r} has no value here: {fault}")


@functools.lru_cache(maxsize=_CACHED)
def _compiled(text: str, variables: tuple[str, ...]) -> Program:
    from stepwell_engine.expressions.parse import check

    return Program(text, check(text, variables))


def compile(text: str, *, variables: tuple[str, ...] = VARIABLES) -> Program:  # noqa: A001 as in re.compile
    """The program of an expression, from a bounded cache.

    `variables` narrows what it may name: a trigger's filter or a key has only `("event",)`. Raises
    ExpressionError telling position, problem and remedy.

    Example: `compile('event.data.plan in ["pro", "team"]')`.
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] users pass anything
        raise ExpressionError(f"an expression must be a string, not {type(text).__name__}")
    return _compiled(text, variables)


def match_to_expression(path: str, *, argument: str = "match") -> str:
    """The expression of `match="data.id"`: `event.data.id == async.data.id`.

    Raises ExpressionError, naming `argument`, for anything but dotted names.
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ExpressionError(
            f"{argument}={path!r} is not a path; write the dotted name of a field of both events, "
            f'e.g. {argument}="data.user_id", or an expression as if_exp='
        )
    return f"event.{path} == async.{path}"
