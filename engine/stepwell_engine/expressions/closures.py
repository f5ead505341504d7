"""The fast path: a checked tree compiled once to Python closures over plain values.

A closure takes the frame, a list of event, async, the time, and the variables of macros.
"""

from collections.abc import Callable
from typing import Any, Final

from stepwell_engine.expressions.functions import FUNCTIONS, is_in
from stepwell_engine.expressions.nodes import (
    Binary,
    Call,
    Cond,
    Has,
    Index,
    ListOf,
    Literal,
    Logic,
    Macro,
    MapOf,
    Node,
    RecordOnly,
    Select,
    Unary,
    path_of,
    walk,
)
from stepwell_engine.expressions.operators import ARITHMETIC, ORDERINGS, can_order, negate
from stepwell_engine.expressions.values import (
    ATOMS,
    PLAIN,
    DeferError,
    FaultError,
    equal,
    is_list,
    is_map,
    plain,
    truthy,
    type_name,
)

Frame = list[Any]
Closure = Callable[[Frame], Any]

EVENT: Final = 0
ASYNC: Final = 1
NOW: Final = 2
# Any, since narrowing to dict would leave checkers with unknown items on the hottest line here.
_MAP: Any = dict
_ROOTS: Final = {"event": EVENT, "async": ASYNC}


def build(root: Node) -> tuple[Closure, int] | None:
    """The closure of a tree and how many macro variables its frame needs; None when only the
    evaluator of record can compute it."""
    nodes = list(walk(root))
    if any(isinstance(node, RecordOnly) for node in nodes):
        return None
    builder = _Builder()
    return builder.build(root, _ROOTS), builder.variables


class _Builder:
    def __init__(self) -> None:
        self.variables = 0

    def build(self, node: Node, scope: dict[str, int]) -> Closure:
        path = path_of(node)
        if path is not None:
            return _path(scope[path[0]], path[1])
        match node:
            case Literal(value):
                return _constant(value)
            case Binary(op, left, right):
                return self._binary(op, left, right, scope)
            case Logic(is_and, terms):
                closures = tuple(self.build(term, scope) for term in terms)
                return _all_of(closures) if is_and else _any_of(closures)
            case Unary(op, operand):
                inner = self.build(operand, scope)
                return _not(inner) if op == "!" else _negate(inner)
            case Cond(test, then, other):
                return _cond(*(self.build(part, scope) for part in (test, then, other)))
            case Call(name, args):
                return _call(name, tuple(self.build(arg, scope) for arg in args))
            case Macro():
                return self._macro(node, scope)
            case _:
                return self._access(node, scope)

    def _access(self, node: Node, scope: dict[str, int]) -> Closure:
        match node:
            case Has(target, field):
                return _has(self.build(target, scope), field)
            case Select(target, field):
                return _index(self.build(target, scope), _constant(field))
            case Index(target, index):
                return _index(self.build(target, scope), self.build(index, scope))
            case ListOf(items):
                return _list(tuple(self.build(item, scope) for item in items))
            case MapOf(entries):
                return _map(tuple((self.build(k, scope), self.build(v, scope)) for k, v in entries))
            case _:
                raise AssertionError(f"no closure for {type(node).__name__}")

    def _binary(self, op: str, left: Node, right: Node, scope: dict[str, int]) -> Closure:
        a, b = self.build(left, scope), self.build(right, scope)
        if op in ("==", "!="):
            same = _equality(left, right, a, b)
            return same if op == "==" else _inverted(same)
        if op == "in":
            return _in(a, b, right)
        if op in ORDERINGS:
            return _ordering(ORDERINGS[op], a, b)
        return _arithmetic(ARITHMETIC[op], a, b)

    def _macro(self, node: Macro, scope: dict[str, int]) -> Closure:
        slot = NOW + 1 + self.variables
        self.variables += 1
        target = self.build(node.target, scope)
        inner = {**scope, node.variable: slot}
        body = self.build(node.body, inner)
        if node.kind == "map":
            return _mapped(
                target, slot, body, self.build(node.where, inner) if node.where else None
            )
        if node.kind == "filter":
            return _filtered(target, slot, body)
        if node.kind == "exists_one":
            return _exists_one(target, slot, body)
        return _quantified(target, slot, body, wanted=node.kind == "exists")


def _constant(value: Any) -> Closure:
    return lambda _frame: value


def _path(slot: int, keys: tuple[str, ...]) -> Closure:
    if not keys:
        return lambda frame: plain(frame[slot])

    def path(frame: Frame) -> Any:
        value = frame[slot]
        for key in keys:
            if type(value) is not _MAP:
                value = plain(value)
                if type(value) is not _MAP:
                    return None
            value = value.get(key)
        return value if type(value) in PLAIN else plain(value)

    return path


def _index(target: Closure, index: Closure) -> Closure:
    def at(frame: Frame) -> Any:
        container, key = target(frame), index(frame)
        if is_map(container):
            return plain(container.get(key)) if type(key) is str else None
        if is_list(container) and type(key) in (int, float) and key == key // 1:
            return plain(container[int(key)]) if 0 <= key < len(container) else None
        return None

    return at


def _has(target: Closure, field: str) -> Closure:
    def has(frame: Frame) -> bool:
        container = target(frame)
        return is_map(container) and field in container

    return has


def _equality(left: Node, right: Node, a: Closure, b: Closure) -> Closure:
    # Only a literal null equals null: two missing values never match.
    if left == Literal(None):
        return lambda frame: b(frame) is None
    if right == Literal(None):
        return lambda frame: a(frame) is None
    if isinstance(right, Literal) and type(right.value) is str:
        return lambda frame: a(frame) == right.value
    if isinstance(left, Literal) and type(left.value) is str:
        return lambda frame: b(frame) == left.value

    def same(frame: Frame) -> bool:
        x, y = a(frame), b(frame)
        if type(x) is str and type(y) is str:
            return x == y
        return x is not None and equal(x, y)

    return same


def _inverted(inner: Closure) -> Closure:
    return lambda frame: not inner(frame)


def _in(item: Closure, container: Closure, written: Node) -> Closure:
    if isinstance(written, ListOf) and all(
        isinstance(entry, Literal) and type(entry.value) is str for entry in written.items
    ):
        words = frozenset(entry.value for entry in written.items if isinstance(entry, Literal))

        def among(frame: Frame) -> bool:
            value = item(frame)
            return type(value) is str and value in words

        return among
    return lambda frame: is_in(item(frame), container(frame))


def _ordering(test: Callable[[Any, Any], bool], a: Closure, b: Closure) -> Closure:
    def ordered(frame: Frame) -> bool:
        x, y = a(frame), b(frame)
        return can_order(x, y) and test(x, y)

    return ordered


def _arithmetic(operation: Callable[[Any, Any], Any], a: Closure, b: Closure) -> Closure:
    return lambda frame: operation(a(frame), b(frame))


def _not(inner: Closure) -> Closure:
    return lambda frame: not truthy(inner(frame))


def _negate(inner: Closure) -> Closure:
    return lambda frame: negate(inner(frame))


def _cond(test: Closure, then: Closure, other: Closure) -> Closure:
    return lambda frame: then(frame) if truthy(test(frame)) else other(frame)


def _all_of(terms: tuple[Closure, ...]) -> Closure:
    def conjunction(frame: Frame) -> Any:
        fault: FaultError | None = None
        value: Any = True
        for term in terms:
            try:
                value = term(frame)
            except FaultError as raised:
                fault = fault or raised
                continue
            if value is not True and not truthy(value):
                return value
        if fault is not None:
            raise fault
        return value

    return conjunction


def _any_of(terms: tuple[Closure, ...]) -> Closure:
    def disjunction(frame: Frame) -> Any:
        fault: FaultError | None = None
        value: Any = False
        for term in terms:
            try:
                value = term(frame)
            except FaultError as raised:
                fault = fault or raised
                continue
            if value is True or truthy(value):
                return value
        if fault is not None:
            raise fault
        return value

    return disjunction


def _call(name: str, args: tuple[Closure, ...]) -> Closure:
    function = FUNCTIONS[name]
    run = function.run
    assert run is not None, f"{name} has no fast form; build() refuses such trees"
    if function.timed:
        return lambda frame: run(frame[NOW], *(arg(frame) for arg in args))
    if len(args) == 1:
        only = args[0]
        return lambda frame: run(only(frame))
    first, second = args
    return lambda frame: run(first(frame), second(frame))


def _stored(value: Any) -> Any:
    # A datetime inside a container would read as stored data, that is as a string.
    if type(value) in ATOMS and type(value) not in PLAIN:
        raise DeferError
    return value


def _list(items: tuple[Closure, ...]) -> Closure:
    return lambda frame: [_stored(item(frame)) for item in items]


def _map(entries: tuple[tuple[Closure, Closure], ...]) -> Closure:
    def mapping(frame: Frame) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key_of, value_of in entries:
            key = key_of(frame)
            if type(key) is not str or key in made:
                raise DeferError
            made[key] = _stored(value_of(frame))
        return made

    return mapping


def _items(container: Any) -> list[Any]:
    if container is None:
        return []
    if is_list(container):
        return container
    if is_map(container):
        return list(container)
    raise FaultError(f"a {type_name(container)} has no items")


def _each(target: Closure, slot: int, body: Closure) -> Callable[[Frame], Any]:
    def each(frame: Frame) -> Any:
        for item in _items(target(frame)):
            frame[slot] = value = plain(item)
            yield value, body(frame)

    return each


def _mapped(target: Closure, slot: int, body: Closure, where: Closure | None) -> Closure:
    if where is None:
        each = _each(target, slot, body)
        return lambda frame: [_stored(result) for _, result in each(frame)]
    chosen = _each(target, slot, where)
    return lambda frame: [_stored(body(frame)) for _, kept in chosen(frame) if truthy(kept)]


def _filtered(target: Closure, slot: int, body: Closure) -> Closure:
    each = _each(target, slot, body)
    return lambda frame: [item for item, kept in each(frame) if truthy(kept)]


def _exists_one(target: Closure, slot: int, body: Closure) -> Closure:
    each = _each(target, slot, body)
    return lambda frame: sum(truthy(found) for _, found in each(frame)) == 1


def _quantified(target: Closure, slot: int, body: Closure, *, wanted: bool) -> Closure:
    def quantified(frame: Frame) -> bool:
        fault: FaultError | None = None
        for item in _items(target(frame)):
            frame[slot] = plain(item)
            try:
                if truthy(body(frame)) is wanted:
                    return wanted
            except FaultError as raised:
                fault = fault or raised
        if fault is not None:
            raise fault
        return not wanted

    return quantified
