"""The fast path agrees with cel-python, the evaluator of record, on a generated corpus."""

import datetime as dt
import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell.errors import ExpressionError
from stepwell_engine.expressions import compile as cel

NOW = 1_706_933_106_000
FIELDS = ["a", "b", "c", "nope"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-4, 4)
    | st.sampled_from([2**63 - 1, -(2**63), 0.0, 1.0, 2.5, -1.5, 1e300])
    | st.sampled_from(["", "a", "b", "ab", "2", "0x1", "true", "1.5", "[1]", "YQ", "2024-01-02"])
    | st.sampled_from([b"a", dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, tzinfo=dt.UTC)])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)
events = st.fixed_dictionaries(
    {"data": st.dictionaries(st.sampled_from(FIELDS), values, max_size=4)}
)

literals = st.sampled_from(
    [
        "null",
        "true",
        "false",
        "0",
        "1",
        "-2",
        "2.5",
        "1.0",
        "''",
        "'a'",
        "'ab'",
        "'2'",
        "[]",
        "[1, 'a', null]",
        "{}",
        "{'a': 1}",
        "9223372036854775807",
        "now()",
        "date('2024-01-02')",
        "1u",
        "b'a'",
        "duration('1s')",
    ]
)
paths = st.builds(
    lambda root, keys: ".".join([root, "data", *keys]),
    st.sampled_from(["event", "async"]),
    st.lists(st.sampled_from(FIELDS), max_size=2),
)
UNARY = [
    "!({0})",
    "-({0})",
    "size({0})",
    "lowercase({0})",
    "int({0})",
    "double({0})",
    "string({0})",
    "bool({0})",
    "json_parse({0})",
    "b64decode({0})",
    "date({0})",
    "({0}).a",
    "({0})[0]",
    "({0})['a']",
    "has(({0}).a)",
    "[{0}]",
    "{{'a': {0}}}",
    "dyn({0})",
    "uppercase({0})",
    "now_plus({0})",
    "type({0})",
]
OPERATORS = ["==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%", "&&", "||"]
BINARY = [f"({{0}}) {op} ({{1}})" for op in OPERATORS] + [
    "({0}).contains({1})",
    "({0}).startsWith({1})",
    "({0}).endsWith({1})",
    "({0})[{1}]",
    "[{0}, {1}]",
    "({0}).map(a, {1})",
    "({0}).map(i, i)",
    "({0}).exists(i, i == ({1}))",
    "({0}).all(i, i != ({1}))",
    "({0}).filter(i, i < ({1}))",
    "({0}).exists_one(i, ({1}) in [i])",
    "({0}).map(i, i == ({1}), i + 1)",
    "({0}).exists(i, i > ({1}))",
    "({0}).all(i, i > ({1}))",
    "({0}).map(event, event.a)",
]

expressions = st.recursive(
    paths | literals,
    lambda inner: st.one_of(
        st.builds(str.format, st.sampled_from(UNARY), inner),
        st.builds(str.format, st.sampled_from(BINARY), inner, inner),
        st.builds("({0}) ? ({1}) : ({2})".format, inner, inner, inner),
    ),
    max_leaves=6,
)


def outcome(evaluate, event, async_):
    try:
        return typed(evaluate(event, async_, now_ms=NOW))
    except ExpressionError:
        return "no value"


def typed(value):
    """A value with its type, so that 1, 1.0 and True differ and NaN equals NaN."""
    if isinstance(value, list):
        return ["list", *map(typed, value)]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return type(value).__name__, value


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(expressions, events, events)
def test_fast_path_agrees_with_the_evaluator_of_record(text, event, async_):
    program = cel(text)
    assert outcome(program.evaluate, event, async_) == outcome(
        program.evaluate_reference, event, async_
    )
    if not program.uses_now:
        assert program.matches(event, async_) is (
            outcome(program.evaluate_reference, event, async_) == ("bool", True)
        )
