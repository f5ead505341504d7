"""Equality conjuncts and keys: what `==` finds equal must meet in the index, nothing else."""

import datetime as dt
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell_engine.expressions import Equality, index_key, lookup
from stepwell_engine.expressions import compile as cel
from stepwell_engine.expressions.values import equal


@pytest.mark.parametrize(
    ("text", "expected", "residual"),
    [
        ("event.data.id == async.data.id", [Equality("data.id", "data.id")], False),
        ("async.data.id == event.data.user.id", [Equality("data.id", "data.user.id")], False),
        ('async.data.x == "lit"', [Equality("data.x", None, "lit")], False),
        ("-5 == async.data.x", [Equality("data.x", None, -5)], False),
        (
            "async.data.x == true && async.name == 'n'",
            [Equality("data.x", None, True), Equality("name", None, "n")],
            False,
        ),
        (
            "(async.data.x == 1.5 && (event.data.a == async.data.a))",
            [Equality("data.x", None, 1.5), Equality("data.a", "data.a")],
            False,
        ),
        ('async["data"]["user-id"] == event.data.id', [Equality("data.user-id", "data.id")], False),
        ("async.data.x == 1 && event.data.y == 2", [Equality("data.x", None, 1)], True),
        ("async.data.x == 1 || async.data.y == 2", [], True),
        ("async.data.x == null", [], True),
        ("async.data.x == async.data.y", [], True),
        ("async.data.x != 1", [], True),
        ("!(async.data.x == 1)", [], True),
        ('async.data["a.b"] == 1', [], True),
        ("async == event", [], True),
        ("async.data.x[0] == 1", [], True),
        ("true", [], True),
    ],
)
def test_equalities(text, expected, residual):
    program = cel(text)
    assert list(program.equalities()) == expected
    assert program.residual is residual


def test_bind():
    program = cel("event.data.id == async.data.id && async.data.kind == 'x' && async.data.n > 1")
    assert program.bind({"data": {"id": 7}}) == (("data.id", 7), ("data.kind", "x"))
    assert program.bind({"data": {"id": None}}) is None
    assert program.bind({"data": {}}) is None
    assert program.bind({"data": {"id": math.nan}}) is None
    assert program.bind({"data": {"id": object()}}) is None
    assert cel("event.data.a == 1").bind({}) == ()


def test_lookup():
    event = {"data": {"a": {"b": 1}, "at": dt.date(2024, 1, 2)}, "id": "e"}
    assert lookup("data.a.b", event) == 1
    assert lookup("id", event) == "e"
    assert lookup("data.at", event) == "2024-01-02"
    assert lookup("data.x.y", event) is None
    assert lookup("id.x", event) is None


def test_index_key_form():
    key = index_key("a")
    assert key is not None
    assert len(key) == 16
    assert index_key(150) == index_key(150.0)
    assert index_key(0) == index_key(-0.0)
    assert index_key(1) != index_key(True)
    assert index_key(1) != index_key("1")
    assert index_key(["ab"]) != index_key(["a", "b"])
    assert index_key({"a": 1, "b": 2.0}) == index_key({"b": 2, "a": 1.0})
    assert index_key(b"hi") == index_key("aGk=")
    assert index_key(None) is None
    assert index_key(math.nan) is None
    assert index_key([math.nan]) is None


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.0, 2.0**53, 1e300])
    | st.sampled_from([2**53, 2**53 + 1])
    | st.text("ab1", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(plain, plain)
def test_keys_are_equal_exactly_when_values_are(a, b):
    if a is None or b is None:
        assert index_key(None) is None
    else:
        assert (index_key(a) == index_key(b)) is equal(a, b)


@settings(max_examples=200, deadline=None)
@given(plain, plain)
def test_the_index_agrees_with_evaluation(a, b):
    program = cel("event.data.k == async.data.k")
    bound = program.bind({"data": {"k": a}})
    candidate = {"data": {"k": b}}
    by_index = bound is not None and index_key(bound[0][1]) == index_key(
        lookup("data.k", candidate)
    )
    assert by_index is program.matches({"data": {"k": a}}, candidate)
