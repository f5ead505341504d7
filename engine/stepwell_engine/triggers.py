"""Which functions want an event: an index by name, and for internal events by the value they filter on."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stepwell.errors import StepwellError
from stepwell_engine.expressions import Program, compile, lookup  # noqa: A004
from stepwell_engine.limits.admission import Flow
from stepwell_engine.once import Once

STARTED, FILTERED, FILTER_ERROR = "started", "filtered", "filter_error"
"""The outcomes of an event for a function that has a trigger of its name."""

INTERNAL: Final = "inngest/"
_ROUTES: Final = 10_000

# What `on_failure` writes (with the fn_id: a slug alone may be two apps' functions), and what users write to watch one function.
_ONE_FUNCTION: Final = re.compile(
    r"\s*event\.(data\.(?:function_id|fn_id))\s*==\s*(['\"])([^'\"\\]*)\2\s*"
    r"(?:&&\s*event\.data\.fn_id\s*==\s*(['\"])([^'\"\\]*)\4\s*)?"
)

logger = logging.getLogger("stepwell.coordinator")

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RegisteredFunction:
    """A function as a worker published it. `number` is its short name in keys, `shard` where its runs live.

    `flow`: its flow control, None when it has none. `removed`: nothing starts it any more, it may still have runs.
    Raises ValueError, TypeError, KeyError for an unreadable config.
    """

    app: str
    fn: str
    number: str
    shard: int
    config: Mapping[str, Any]
    removed: bool = False
    flow: Flow | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flow", Flow.read(self.config))

    @property
    def id(self) -> str:
        """`app-fn`, as users' expressions know it."""
        return f"{self.app}-{self.fn}"

    @property
    def max_crashes(self) -> int:
        """Crash deliveries after which a run fails."""
        return int(self.config.get("max_crashes") or 3)

    @property
    def lookback(self) -> frozenset[str]:
        """Event names whose recent events its waits may ask for."""
        return frozenset(self.config.get("lookback") or ())

    @property
    def cancelling(self) -> frozenset[str]:
        """Names of events that cancel its runs."""
        cancels = self.flow and self.flow.cancels
        return cancels.names if cancels else frozenset()

    @property
    def triggers(self) -> list[tuple[str, str | None]]:
        """Event name (or pattern) and expression of each trigger."""
        found: Iterable[Mapping[str, Any]] = self.config.get("triggers") or ()
        return [(t["event"], t.get("expression")) for t in found if t.get("event")]


Watch = tuple[RegisteredFunction, str | None]

Condition = Program | None
"""None stands for an expression that doesn't compile here: it never matches, and is an error each time."""


@dataclass(slots=True)
class Route:
    """Who wants events of one name.

    `home`: the shard of all who want it, if they want it whatever it holds and have no flow control; else -1.
    `by_value`: path → value → functions that want just that value, each with the `data.fn_id` it asks for as well, if it does.
    """

    name_bytes: int
    always: list[RegisteredFunction] = field(default_factory=list[RegisteredFunction])
    filtered: list[tuple[RegisteredFunction, list[Condition]]] = field(
        default_factory=list[tuple[RegisteredFunction, list[Condition]]]
    )
    by_value: dict[str, dict[str, list[Watch]]] = field(
        default_factory=dict[str, dict[str, list[Watch]]]
    )
    told: Once = field(default_factory=Once)
    home: int = -1

    @property
    def empty(self) -> bool:
        """Whether nobody wants the name."""
        return not (self.always or self.filtered or self.by_value)

    def outcomes(
        self, fields: Callable[[], Fields], now_ms: int
    ) -> list[tuple[RegisteredFunction, str]]:
        """What the event comes to, function by function. `fields` gives the event when an expression needs it."""
        found = [(function, STARTED) for function in self.always]
        if self.filtered:
            event = fields()
            found += [
                (function, _judge(function, conditions, event, now_ms, self.told))
                for function, conditions in self.filtered
            ]
        if self.by_value:
            seen = {function.number for function, outcome in found if outcome == STARTED}
            for path, values in self.by_value.items():
                value = lookup(path, fields())
                for function, fn in values.get(value, ()) if isinstance(value, str) else ():
                    if fn is not None and fn != lookup("data.fn_id", fields()):
                        continue
                    if function.number not in seen:
                        seen.add(function.number)
                        found.append((function, STARTED))
        return found


def _judge(
    function: RegisteredFunction,
    conditions: list[Condition],
    event: Fields,
    now_ms: int,
    told: Once,
) -> str:
    outcome = FILTERED
    for program in conditions:
        try:
            if program is None:
                outcome = FILTER_ERROR
            elif program.evaluate(event, None, now_ms=now_ms) is True:
                return STARTED
        except StepwellError as error:
            outcome = FILTER_ERROR
            if told(function.id, str(error)):
                logger.warning(
                    "function %s: its trigger's expression has no value for an event named %s: %s; more of these are only "
                    "counted (stepwell_filter_errors_total)",
                    function.id, event.get("name"), error,
                )  # fmt: skip
    return outcome


class TriggerIndex:
    """The triggers of all functions.

    index = TriggerIndex(functions)
    index.route("shop/order.created").always
    """

    __slots__ = ("_exact", "_prefixes", "_routes", "_told")

    def __init__(self, functions: Iterable[RegisteredFunction]) -> None:
        self._exact: dict[str, list[tuple[RegisteredFunction, str | None]]] = {}
        self._prefixes: dict[str, list[tuple[RegisteredFunction, str | None]]] = {}
        self._routes: dict[str, Route] = {}
        self._told = Once()
        for function in functions:
            for event, expression in function.triggers:
                wild = event.endswith(("/*", ".*"))
                table = self._prefixes if wild else self._exact
                table.setdefault(event[:-1] if wild else event, []).append((function, expression))

    def route(self, name: str) -> Route:
        """Who wants events of that name; remembered, since few names make most events."""
        route = self._routes.get(name)
        if route is None:
            if len(self._routes) >= _ROUTES:  # names made of user data: don't let them pile up
                self._routes.clear()
            route = self._routes[name] = self._build(name)
        return route

    def _build(self, name: str) -> Route:
        wanted = list(self._exact.get(name, ()))
        if self._prefixes:
            for at, char in enumerate(name, 1):
                if char in "/.":
                    wanted += self._prefixes.get(name[:at], ())
        functions = {function.number: function for function, _ in wanted}
        texts: dict[str, list[str | None]] = {}
        for function, text in wanted:
            texts.setdefault(function.number, []).append(text or None)
        route = Route(len(name.encode()), told=self._told)
        for number, function in functions.items():
            _place(route, function, texts[number], internal=name.startswith(INTERNAL))
        shards = {function.shard for function in route.always}
        controlled = any(function.flow is not None for function in route.always)
        if len(shards) == 1 and not (controlled or route.filtered or route.by_value):
            (route.home,) = shards
        return route


def _place(
    route: Route, function: RegisteredFunction, texts: list[str | None], *, internal: bool
) -> None:
    if None in texts:
        route.always.append(function)
        return
    rest: list[Condition] = []
    for text in dict.fromkeys(t for t in texts if t is not None):
        # Each function may watch its own failures: a thousand such filters must not cost a thousand
        # evaluations a failure. Of user events every filter's outcome is recorded, so they are all asked.
        simple = _ONE_FUNCTION.fullmatch(text) if internal else None
        if simple is not None:
            values = route.by_value.setdefault(simple[1], {})
            values.setdefault(simple[3], []).append((function, simple[5]))
        else:
            rest.append(_compiled(function, text))
    if rest:
        route.filtered.append((function, rest))


def _compiled(function: RegisteredFunction, text: str) -> Condition:
    try:
        return compile(text, variables=("event",))
    except StepwellError as error:
        logger.error(
            "function %s: its trigger's expression %r is unusable here: %s",
            function.id,
            text,
            error,
        )
        return None
