"""Text to checked syntax tree, through cel-python's grammar.

Imports celpy, a third of a second: only ever imported when compiling.
"""

# lark's trees hold unions of tokens and trees that no checker narrows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import difflib
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from celpy.celparser import CELParseError, CELParser
from celpy.celtypes import IntType
from celpy.evaluation import celstr
from lark import Token, Tree

from stepwell.errors import ExpressionError
from stepwell_engine.expressions.functions import FUNCTIONS, MACROS, check_regex
from stepwell_engine.expressions.nodes import (
    TYPE_NAMES,
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
    Name,
    Node,
    RecordOnly,
    Select,
    Unary,
    children,
)
from stepwell_engine.expressions.operators import bounded
from stepwell_engine.expressions.values import FaultError

MAX_LENGTH: Final = 16_384
MAX_DEPTH: Final = 40
VARIABLES: Final = ("event", "async")

CelTree = Tree[Any]

_CHAIN: Final = frozenset(
    {
        "expr",
        "conditionalor",
        "conditionaland",
        "relation",
        "addition",
        "multiplication",
        "unary",
        "member",
    }
)
_OPERATORS: Final = {
    "relation_lt": "<",
    "relation_le": "<=",
    "relation_gt": ">",
    "relation_ge": ">=",
    "relation_eq": "==",
    "relation_ne": "!=",
    "relation_in": "in",
    "addition_add": "+",
    "addition_sub": "-",
    "multiplication_mul": "*",
    "multiplication_div": "/",
    "multiplication_mod": "%",
}
# What people write from habit, and what it is here.
_HINTS: Final = {
    "and": "write &&",
    "or": "write ||",
    "not": "write !x",
    "None": "write null",
    "undefined": "write null",
    "True": "write true",
    "False": "write false",
    "includes": "write x.contains(y)",
    "len": "write size(x)",
    "length": "write size(x)",
    "toLowerCase": "write lowercase(x)",
    "lower": "write lowercase(x)",
    "toUpperCase": "write uppercase(x)",
    "upper": "write uppercase(x)",
    "some": "write x.exists(i, ...)",
    "any": "write x.exists(i, ...)",
    "every": "write x.all(i, ...)",
    "startswith": "write x.startsWith(y)",
    "endswith": "write x.endsWith(y)",
    "str": "write string(x)",
    "float": "write double(x)",
}


def parse_tree(text: str) -> CelTree:
    """cel-python's tree of an expression, without its chains of single children.

    Raises ExpressionError with the position on a syntax error.
    """
    if not text.strip():
        raise ExpressionError('the expression is empty; write e.g. event.data.kind == "a"')
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"the expression has {len(text)} characters; at most {MAX_LENGTH} are allowed"
        )
    try:
        tree = CELParser().parse(text)
    except CELParseError as error:
        raise _syntax_error(text, error) from None
    return _collapse(tree)


def check(text: str, variables: tuple[str, ...] = VARIABLES) -> Node:
    """The checked tree of an expression; every name, function and arity in it is known.

    Raises ExpressionError naming what is wrong, where, and what to write instead.
    """
    return _Checker(text, variables).node(parse_tree(text), 0)


def _collapse(root: CelTree) -> CelTree:
    # The grammar nests ten levels for one operand; without them neither walk here nor cel-python's
    # comes near the recursion limit. Bottom-up, so that one look at each child is enough.
    for tree in root.iter_subtrees():
        tree.children = [
            _sole(child) if isinstance(child, Tree) else child for child in tree.children
        ]
    return _sole(root)


def _sole(tree: CelTree) -> CelTree:
    while len(tree.children) == 1 and isinstance(tree.children[0], Tree):
        below = tree.children[0]
        if tree.data in _CHAIN:
            tree = below
        elif tree.data == "primary" and below.data == "paren_expr":
            tree = cast("CelTree", below.children[0])
        else:
            break
    return tree


def _syntax_error(text: str, error: CELParseError) -> ExpressionError:
    token = getattr(error.__context__, "token", None)
    line, column = error.line, error.column
    if isinstance(token, Token) and token.type == "$END":
        return _error(text, len(text.splitlines()), None, "it ends too early")
    if not isinstance(line, int) or not isinstance(column, int) or line < 1:
        # Only true and false lose their position on the way through cel-python's lexer.
        return _error(text, 1, None, f"unexpected '{token}'; as a field write x[\"{token}\"]")
    rest = text.splitlines()[line - 1][column - 1 :]
    if rest.startswith("="):
        return _error(text, line, column, "'=' is no operator; write ==")
    near = (rest.split(maxsplit=1) or ["the end"])[0]
    hint = f"; {_HINTS[near]}" if near in _HINTS else ""
    return _error(text, line, column, f"unexpected '{near}'{hint}")


def _error(text: str, line: int, column: int | None, problem: str) -> ExpressionError:
    where = f"line {line}, column {column}" if column else f"line {line}"
    source = text.splitlines()[line - 1]
    pointer = f"\n  {source}\n  {' ' * (column - 1)}^" if column else f"\n  {source}"
    return ExpressionError(f"invalid expression at {where}: {problem}{pointer}")


class _Checker:
    """Turns a collapsed tree into nodes, refusing what no evaluator could compute."""

    def __init__(self, text: str, variables: tuple[str, ...]) -> None:
        self._text = text
        self._scope = list(variables)

    def node(self, tree: CelTree, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self._fail(tree, f"nested deeper than {MAX_DEPTH} levels; split it up")
        build = self._BUILDERS.get(str(tree.data))
        if build is None:
            raise self._fail(tree, f"{str(tree.data).replace('_', ' ')} is not supported")
        return build(self, tree, depth + 1)

    def _nodes(self, trees: Iterable[Any], depth: int) -> tuple[Node, ...]:
        return tuple(self.node(tree, depth) for tree in trees)

    def _cond(self, tree: CelTree, depth: int) -> Node:
        test, then, other = self._nodes(parts(tree), depth)
        return Cond(test, then, other)

    def _logic(self, tree: CelTree, depth: int) -> Node:
        is_and = tree.data == "conditionaland"
        terms: list[Node] = []
        for term in self._nodes(chain_terms(tree), depth):
            # (a && b) && c is a && b && c: parentheses hide no equality from the index.
            grouped = isinstance(term, Logic) and term.is_and is is_and
            terms.extend(children(term) if grouped else (term,))
        return Logic(is_and, tuple(terms))

    def _binary(self, tree: CelTree, depth: int) -> Node:
        operation, right = parts(tree)
        return Binary(
            _OPERATORS[operation.data],
            self.node(parts(operation)[0], depth),
            self.node(right, depth),
        )

    def _unary(self, tree: CelTree, depth: int) -> Node:
        operation, below = parts(tree)
        operand = self.node(below, depth)
        op = "!" if operation.data == "unary_not" else "-"
        if op == "-" and isinstance(operand, Literal) and type(operand.value) in (int, float):
            try:
                return Literal(bounded(-operand.value))
            except FaultError as fault:
                raise self._fail(tree, str(fault)) from None
        return Unary(op, operand)

    def _select(self, tree: CelTree, depth: int) -> Node:
        target, field = parts(tree)
        return Select(self.node(target, depth), str(field))

    def _index(self, tree: CelTree, depth: int) -> Node:
        target, index = self._nodes(parts(tree), depth)
        return Index(target, index)

    def _method(self, tree: CelTree, depth: int) -> Node:
        target, name, *arguments = parts(tree)
        args = parts(arguments[0]) if arguments else []
        if str(name) in MACROS:
            return self._macro(tree, str(name), target, args, depth)
        return self._call(name, [target, *args], depth, method=True)

    def _macro(
        self, tree: CelTree, kind: str, target: CelTree, args: list[Any], depth: int
    ) -> Node:
        if len(args) != 2 and not (kind == "map" and len(args) == 3):
            raise self._fail(tree, f"{kind} takes a variable and an expression: x.{kind}(i, ...)")
        variable = _identifier(args[0])
        if variable is None:
            raise self._fail(
                tree, f"the first argument of {kind} must be a name, as i in x.{kind}(i, ...)"
            )
        items = self.node(target, depth)
        self._scope.append(variable)
        bodies = self._nodes(args[1:], depth)
        self._scope.pop()
        where = bodies[0] if len(bodies) == 2 else None
        return Macro(kind, items, variable, bodies[-1], where)

    def _call(self, name: Token, args: list[Any], depth: int, *, method: bool = False) -> Node:
        known = FUNCTIONS.get(name)
        if known is None:
            raise self._fail(name, self._unknown("function", name, [*FUNCTIONS, *MACROS, "has"]))
        if not known.least <= len(args) <= known.most:
            given, least = len(args) - method, known.least - method
            raise self._fail(
                name, f"{name} takes {least} argument{'s' * (least != 1)}, {given} given"
            )
        below = self._nodes(args, depth)
        if known.run is None:
            return RecordOnly(below)
        if name == "matches" and isinstance(below[1], Literal) and isinstance(below[1].value, str):
            try:
                check_regex(below[1].value)
            except FaultError as fault:
                raise self._fail(name, str(fault)) from None
        return Call(str(name), below)

    def _primary(self, tree: CelTree, depth: int) -> Node:
        below = parts(tree)[0]
        match str(below.data):
            case "literal":
                return self._literal(parts(below)[0])
            case "ident":
                return self._name(parts(below)[0])
            case "list_lit":
                return ListOf(self._nodes(_listed(below), depth))
            case "map_lit":
                flat = self._nodes(_listed(below), depth)
                return MapOf(tuple(zip(flat[::2], flat[1::2], strict=True)))
            case "ident_arg":
                name, *arguments = parts(below)
                args = parts(arguments[0]) if arguments else []
                return (
                    self._has(below, args, depth)
                    if name == "has"
                    else self._call(name, args, depth)
                )
            case _:
                raise self._fail(below, "a name cannot begin with a dot; write event.data...")

    def _has(self, tree: CelTree, args: list[Any], depth: int) -> Node:
        selected = self.node(args[0], depth) if len(args) == 1 else None
        if not isinstance(selected, Select):
            raise self._fail(tree, "has takes one field, as in has(event.data.id)")
        return Has(selected.target, selected.field)

    def _name(self, name: Token) -> Node:
        if name in self._scope:
            return Name(str(name))
        if name in TYPE_NAMES:
            return RecordOnly()
        raise self._fail(name, self._unknown("variable", name, self._scope))

    def _literal(self, token: Token) -> Node:
        match token.type:
            case "NULL_LIT":
                return Literal(None)
            case "BOOL_LIT":
                return Literal(str(token) == "true")
            case "FLOAT_LIT":
                return Literal(float(token))
            case "INT_LIT":
                try:
                    return Literal(int(IntType(str(token))))
                except ValueError:
                    raise self._fail(token, f"{token} does not fit in 64 bits") from None
            case "STRING_LIT" | "MLSTRING_LIT":
                return Literal(str.__str__(celstr(token)))
            case _:
                return RecordOnly()

    def _unknown(self, kind: str, name: str, known: Iterable[str]) -> str:
        known = sorted(set(known))
        hint = _HINTS.get(name)
        close = difflib.get_close_matches(name, known, n=1)
        if hint is None and close:
            hint = f"did you mean {close[0]}?"
        return f"unknown {kind} '{name}'; {hint or 'known here: ' + ', '.join(known)}"

    def _fail(self, at: CelTree | Token, problem: str) -> ExpressionError:
        spot: Any = at if isinstance(at, Token) else at.meta
        return _error(self._text, getattr(spot, "line", 1), getattr(spot, "column", None), problem)

    _BUILDERS: Final[dict[str, Callable[["_Checker", CelTree, int], Node]]] = {
        "expr": _cond,
        "conditionalor": _logic,
        "conditionaland": _logic,
        "relation": _binary,
        "addition": _binary,
        "multiplication": _binary,
        "unary": _unary,
        "member_dot": _select,
        "member_dot_arg": _method,
        "member_index": _index,
        "primary": _primary,
    }


def parts(tree: CelTree) -> list[Any]:
    """A node's children. lark types them as tokens or trees; the grammar says which."""
    return tree.children


def chain_terms(tree: CelTree) -> list[CelTree]:
    """The operands of `a && b && c` (or ||), from the left, without recursion."""
    terms: list[CelTree] = []
    kind = tree.data
    while tree.data == kind:
        left, right = parts(tree)
        terms.append(right)
        tree = left
    return [tree, *reversed(terms)]


def _identifier(tree: CelTree) -> str | None:
    below = parts(tree)[0] if tree.data == "primary" else None
    return str(parts(below)[0]) if isinstance(below, Tree) and below.data == "ident" else None


def _listed(tree: CelTree) -> list[Any]:
    return list(parts(tree)[0].children) if parts(tree) else []
