"""The evaluator of record: cel-python's interpreter, with our rules for null, numbers and truth.

Slow and independent of the closures on purpose: a property test holds the two together.
"""

# celpy's containers and lark's trees are generics that no checker narrows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeArgument=false, reportUnknownLambdaType=false

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from celpy import celtypes
from celpy.evaluation import Activation, CELEvalError, CELFunction, Evaluator, base_functions
from lark import Token, Tree

from stepwell_engine.expressions import functions as plain_functions
from stepwell_engine.expressions.celvalues import (
    add,
    arithmetic,
    contains,
    equal,
    from_cel,
    is_in,
    item_at,
    negate,
    ordering,
    size,
    to_cel,
    truthy,
)
from stepwell_engine.expressions.functions import FUNCTIONS, MACROS
from stepwell_engine.expressions.nodes import TYPE_NAMES
from stepwell_engine.expressions.operators import ORDERINGS
from stepwell_engine.expressions.parse import CelTree, chain_terms, parse_tree, parts
from stepwell_engine.expressions.values import FaultError, deep_plain, text_of


def evaluate(
    text: str, event: Mapping[str, Any] | None, async_: Mapping[str, Any] | None, now_ms: int | None
) -> Any:
    """The value of an expression as cel-python computes it under our rules.

    Raises FaultError if it has none.
    """
    try:
        variables = {"event": to_cel(deep_plain(event)), "async": to_cel(deep_plain(async_))}
    except (TypeError, ValueError) as error:
        raise FaultError(f"the event has a value CEL cannot hold: {error}") from None
    activation = Activation(functions=_functions(now_ms))
    evaluator = _Interpreter(_tree(text), activation, variables)
    value: Any = evaluator.visit(evaluator.ast)
    if isinstance(value, CELEvalError):
        raise FaultError(str(value.args[0]))
    return from_cel(value)


_tree = functools.lru_cache(maxsize=512)(parse_tree)


def _lifted(function: Callable[..., Any]) -> CELFunction:
    """Errors travel as values in cel-python: pass them on, and turn every exception into one."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        for arg in args:
            if isinstance(arg, CELEvalError):
                return arg
        try:
            return function(*args)
        except FaultError as fault:
            return CELEvalError(str(fault))
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            return CELEvalError(f"{type(error).__name__}: {error}")

    return call


def _null_is(result: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: result if any(arg is None for arg in args) else function(*args)


def _text_test(name: str) -> Callable[..., Any]:
    standard: Any = base_functions[name]

    def test(*args: Any) -> Any:
        if not all(isinstance(arg, celtypes.StringType) for arg in args):
            raise FaultError(f"{name} takes strings")
        return standard(*args)

    return test


def _on_plain(name: str, now_ms: int | None) -> Callable[..., Any]:
    """Functions that CEL does not have: there is nothing in cel-python to hold them against."""
    known = FUNCTIONS[name]
    assert known.run is not None, f"{name} has no plain form"
    run = known.run
    if known.timed:
        run = functools.partial(run, now_ms)
    return lambda *args: to_cel(run(*(from_cel(arg) for arg in args)))


def _string(value: Any) -> Any:
    if isinstance(value, celtypes.TimestampType | celtypes.DurationType | bytes):
        return celtypes.StringType(value)  # type: ignore[arg-type]  # its signature forgets times
    return celtypes.StringType(text_of(from_cel(value)))


def _number(kind: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, celtypes.ListType | celtypes.MapType | bytes | type):
            raise FaultError(f"{kind.__name__} takes a string or number")
        return kind(value)

    return convert


def _own_functions() -> dict[str, CELFunction]:
    null, no = None, celtypes.BoolType(False)
    table: dict[str, Callable[..., Any]] = {
        **{f"_{op}_": ordering(op) for op in ORDERINGS},
        **{f"_{op}_": arithmetic(op) for op in ("-", "*", "/", "%")},
        "_+_": add,
        "_==_": lambda a, b: celtypes.BoolType(a is not None and equal(a, b)),
        "_!=_": lambda a, b: celtypes.BoolType(a is None or not equal(a, b)),
        "_in_": is_in,
        "_[_]": item_at,
        "-_": negate,
        "!_": lambda value: celtypes.BoolType(not truthy(value)),
        "size": size,
        "contains": contains,
        "startsWith": _null_is(no, _text_test("startsWith")),
        "endsWith": _null_is(no, _text_test("endsWith")),
        "matches": _null_is(no, lambda a, b: celtypes.BoolType(plain_functions.matches(a, b))),
        "int": _null_is(null, _number(celtypes.IntType)),
        "uint": _null_is(null, _number(celtypes.UintType)),
        "double": _null_is(null, _number(celtypes.DoubleType)),
        "string": _null_is(null, _string),
    }
    for name in FUNCTIONS.keys() - table.keys() - {"dyn", "type"}:
        standard = base_functions.get(name)
        if standard is not None and name != "bool":
            table[name] = _null_is(null, standard)
    return {name: _lifted(function) for name, function in table.items()}


_OWN: Final = _own_functions()
_TYPES: Final = {name: base_functions[name] for name in TYPE_NAMES}


def _functions(now_ms: int | None) -> dict[str, CELFunction]:
    names = FUNCTIONS.keys() - base_functions.keys() | {"bool"}
    return _OWN | {name: _lifted(_on_plain(name, now_ms)) for name in names}


class _Interpreter(Evaluator):
    """cel-python's, overridden where our rules are syntax (a literal null) or control flow."""

    def __init__(self, ast: CelTree, activation: Activation, variables: dict[str, Any]) -> None:
        super().__init__(ast, activation)
        self._variables = variables

    def ident_value(self, name: str, root_scope: bool = False) -> Any:  # noqa: ARG002
        # cel-python's activation takes a null variable for none at all; and `string` alone is a
        # type, where its table holds our function of that name.
        return self._variables[name] if name in self._variables else _TYPES[name]

    def expr(self, tree: CelTree) -> Any:
        test = self.visit(parts(tree)[0])
        if isinstance(test, CELEvalError):
            return test
        return self.visit(parts(tree)[1 if truthy(test) else 2])

    def conditionaland(self, tree: CelTree) -> Any:
        return self._chain(tree, stop=False)

    def conditionalor(self, tree: CelTree) -> Any:
        return self._chain(tree, stop=True)

    def _chain(self, tree: CelTree, *, stop: bool) -> Any:
        # No short cut past an error: a later term may still decide, whatever the first ones are.
        error: CELEvalError | None = None
        value: Any = None
        for term in chain_terms(tree):
            value = self.visit(term)
            if isinstance(value, CELEvalError):
                error = error or value
            elif truthy(value) is stop:
                return value
        return error or value

    def relation(self, tree: CelTree) -> Any:
        operation, right = parts(tree)
        left = parts(operation)[0]
        if operation.data in ("relation_eq", "relation_ne") and (_is_null(left) or _is_null(right)):
            value = self.visit(left if _is_null(right) else right)
            if isinstance(value, CELEvalError):
                return value
            return celtypes.BoolType((value is None) is (operation.data == "relation_eq"))
        return super().relation(tree)

    def member_dot(self, tree: CelTree) -> Any:
        target, field = parts(tree)
        value = self.visit(target)
        if isinstance(value, celtypes.MapType):
            return dict.get(value, celtypes.StringType(field))
        return value if isinstance(value, CELEvalError) else None

    def macro_has_eval(self, exprlist: CelTree) -> Any:
        target, field = parts(parts(exprlist)[0])
        value = self.visit(target)
        if isinstance(value, CELEvalError):
            return value
        found = isinstance(value, celtypes.MapType) and celtypes.StringType(field) in value
        return celtypes.BoolType(found)

    def mapinits(self, tree: CelTree) -> Any:
        values = self.visit_children(tree)
        error = next((value for value in values if isinstance(value, CELEvalError)), None)
        return error or super().mapinits(tree)

    def member_dot_arg(self, tree: CelTree) -> Any:
        target, name, *arguments = parts(tree)
        if str(name) not in MACROS:
            return super().member_dot_arg(tree)
        items = self.visit(target)
        if isinstance(items, CELEvalError):
            return items
        if items is not None and not isinstance(items, celtypes.ListType | celtypes.MapType):
            return CELEvalError(f"{name} takes a list or a map")
        return self._macro(str(name), list(items or ()), parts(arguments[0]))

    def _macro(self, name: str, items: list[Any], args: list[Any]) -> Any:
        variable = parts(args[0])[0].children[0]
        results = [(item, self._inner(args[1], str(variable), item)) for item in items]
        error = next((result for _, result in results if isinstance(result, CELEvalError)), None)
        kept = [
            item
            for item, result in results
            if not isinstance(result, CELEvalError) and truthy(result)
        ]
        if name == "exists" and kept:
            return celtypes.BoolType(True)
        if name == "all" and len(kept) + sum(isinstance(r, CELEvalError) for _, r in results) < len(
            items
        ):
            return celtypes.BoolType(False)
        if error is not None and not (name == "map" and len(args) == 3):
            return error
        match name:
            case "exists" | "all":
                return celtypes.BoolType(name == "all")
            case "exists_one":
                return celtypes.BoolType(len(kept) == 1)
            case "filter":
                return celtypes.ListType(kept)
            case _:
                mapped = [result for _, result in results]
                if len(args) == 3:
                    mapped = [self._inner(args[2], str(variable), item) for item in kept]
                error = error or next((r for r in mapped if isinstance(r, CELEvalError)), None)
                return error or celtypes.ListType(mapped)

    def _inner(self, body: CelTree, variable: str, item: Any) -> Any:
        return _Interpreter(body, self.activation, {**self._variables, variable: item}).visit(body)


def _is_null(tree: CelTree) -> bool:
    below = parts(tree)[0] if tree.data == "primary" else None
    if not isinstance(below, Tree) or below.data != "literal":
        return False
    token = parts(below)[0]
    return isinstance(token, Token) and token.type == "NULL_LIT"
