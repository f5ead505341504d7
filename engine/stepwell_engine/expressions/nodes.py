"""The checked syntax tree of an expression: what closures and index analysis are made from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TYPE_NAMES = frozenset(
    {"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"}
)


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: null, bool, int, float or str."""

    value: Any


@dataclass(frozen=True, slots=True)
class RecordOnly:
    """Something only the evaluator of record computes: bytes, uints, durations, type names."""

    children: tuple["Node", ...] = ()


@dataclass(frozen=True, slots=True)
class Name:
    """`event`, `async`, or the variable of an enclosing macro."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`target.field`."""

    target: "Node"
    field: str


@dataclass(frozen=True, slots=True)
class Index:
    """`target[index]`."""

    target: "Node"
    index: "Node"


@dataclass(frozen=True, slots=True)
class Has:
    """`has(target.field)`."""

    target: "Node"
    field: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function or method call; a method's object is the first argument."""

    name: str
    args: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Macro:
    """`target.kind(variable, body)`; `where` is the filter of the three-argument `map`."""

    kind: str
    target: "Node"
    variable: str
    body: "Node"
    where: "Node | None" = None


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, b]`."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """`{k: v}`."""

    entries: tuple[tuple["Node", "Node"], ...]


@dataclass(frozen=True, slots=True)
class Cond:
    """`test ? then : other`."""

    test: "Node"
    then: "Node"
    other: "Node"


@dataclass(frozen=True, slots=True)
class Logic:
    """A whole chain of `&&` or of `||`, flat: hundreds of conjuncts cost no recursion."""

    is_and: bool
    terms: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """`!operand` or `-operand`."""

    op: str
    operand: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """A comparison, `in`, or arithmetic."""

    op: str
    left: "Node"
    right: "Node"


Node = (
    Literal
    | RecordOnly
    | Name
    | Select
    | Index
    | Has
    | Call
    | Macro
    | ListOf
    | MapOf
    | Cond
    | Logic
    | Unary
    | Binary
)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below one."""
    match node:
        case Literal() | Name():
            return ()
        case RecordOnly(below) | ListOf(below) | Call(_, below) | Logic(_, below):
            return below
        case Select(target, _) | Has(target, _):
            return (target,)
        case Index(a, b) | Binary(_, a, b):
            return (a, b)
        case Unary(_, operand):
            return (operand,)
        case Cond(test, then, other):
            return (test, then, other)
        case Macro(_, target, _, body, where):
            return (target, body) if where is None else (target, where, body)
        case MapOf(entries):
            return tuple(part for entry in entries for part in entry)


def walk(root: Node) -> Iterator[Node]:
    """Every node, the root first."""
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(children(node))


def path_of(node: Node) -> tuple[str, tuple[str, ...]] | None:
    """`event.data.a` as ("event", ("data", "a")), or None for anything but fields of a variable."""
    fields: list[str] = []
    while True:
        match node:
            case Select(target, field):
                fields.append(field)
                node = target
            case Index(target, Literal(str() as field)):
                fields.append(field)
                node = target
            case Name(name):
                return name, tuple(reversed(fields))
            case _:
                return None
