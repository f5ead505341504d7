"""What does not compile says where, what is wrong and what to write."""

import subprocess
import sys

import pytest

from stepwell.errors import ExpressionError
from stepwell_engine.expressions import compile as cel
from stepwell_engine.expressions import key_text, match_to_expression


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("event.data.x = 1", "line 1, column 14: '=' is no operator; write =="),
        ("event.data.x === 1", "'=' is no operator"),
        ("event.data.x ==", "ends too early"),
        ("(", "ends too early"),
        ("a and b", "unexpected 'and'; write &&"),
        ("event.data.true", r"unexpected 'true'; as a field write x\[\"true\"\]"),
        ("evnt.data.x", r"unknown variable 'evnt'; did you mean event\?"),
        ("steps.a == 1", "unknown variable 'steps'; known here: async, event"),
        ("None == event.data.x", "unknown variable 'None'; write null"),
        ("event.data.s.includes('a')", r"unknown function 'includes'; write x.contains\(y\)"),
        ("siz(event.data.s)", r"unknown function 'siz'; did you mean size\?"),
        ("event.data.a\n  && foo(1)", "line 2, column 6: unknown function 'foo'"),
        ("size(1, 2)", "size takes 1 argument, 2 given"),
        ("'a'.startsWith()", "startsWith takes 1 argument, 0 given"),
        ("has(event)", "has takes one field"),
        ("[1].map(1, 2)", "first argument of map must be a name"),
        ("[1].all(i)", "all takes a variable and an expression"),
        ("'a'.matches('(')", "not an RE2 pattern"),
        ("9223372036854775808", "64 bits"),
        ("event{a: 1}", "not supported"),
        (".event.data", "cannot begin with a dot"),
        ("[1, 2].reduce(a, b, 0, a + b)", "unknown function 'reduce'"),
        ("i == 1 || [1].all(i, i == 1)", "unknown variable 'i'"),
        ("!" * 60 + "true", "nested deeper than"),
        ("'" + "a" * 20_000 + "'", "at most 16384"),
    ],
)
def test_bad_expressions(text, message):
    with pytest.raises(ExpressionError, match=message):
        cel(text)


def test_a_pointer_shows_the_place():
    with pytest.raises(ExpressionError) as caught:
        cel("event.data.a == nope")
    assert str(caught.value).splitlines()[1:] == ["  event.data.a == nope", " " * 18 + "^"]


def test_not_a_string():
    with pytest.raises(ExpressionError, match="must be a string, not int"):
        cel(5)  # type: ignore[arg-type]  # what is tested


def test_variables_can_be_narrowed():
    assert cel("event.data.a", variables=("event",)).uses_async is False
    with pytest.raises(ExpressionError, match="unknown variable 'async'; known here: event"):
        cel("async.data.a == 1", variables=("event",))


def test_compiled_once():
    assert cel("event.data.a == 1") is cel("event.data.a == 1")


def test_program_tells_what_it_needs():
    assert cel("async.data.a == 1").uses_async
    assert cel("date(event.ts) < now()").uses_now
    assert cel("timestamp(event.data.at) < now()").uses_now
    assert not cel("event.data.now == 1").uses_now
    assert cel("event.data.a == 1").fast
    assert not cel("timestamp(event.data.at) == null").fast
    assert repr(cel("event.ts")) == "Program('event.ts')"


@pytest.mark.parametrize("path", ["data.id", "id", "user.external_id"])
def test_match(path):
    assert match_to_expression(path) == f"event.{path} == async.{path}"
    assert cel(match_to_expression(path)).equalities()


@pytest.mark.parametrize(
    "path", ["", ".", "data.", "data id", "data[0]", "a == b", "data.é", 5, None]
)
def test_match_must_be_a_path(path):
    with pytest.raises(ExpressionError, match=r"match=.* is not a path; write"):
        match_to_expression(path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("a", "a"),
        (150, "150"),
        (150.0, "150"),
        (True, "true"),
        ({"b": 1.0, "a": [None, "é"]}, '{"a":[null,"é"],"b":1}'),
    ],
)
def test_key_text(value, expected):
    assert key_text(value) == expected


def test_importing_loads_no_parser():
    code = """if True:
        import sys, stepwell_engine.expressions
        assert not {"celpy", "lark", "re2"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
