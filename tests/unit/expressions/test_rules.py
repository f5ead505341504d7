"""Semantics §8 rule by rule, each case on the fast path and on the evaluator of record."""

import datetime as dt
import decimal
import uuid

import pytest

from stepwell.errors import ExpressionError
from stepwell_engine.expressions import compile as cel

EVENT = {
    "name": "shop/order",
    "id": "01J",
    "ts": 1_700_000_000_000,
    "v": None,
    "user": {"id": 7},
    "data": {
        "id": 150,
        "price": 99.5,
        "name": "Ann",
        "on": True,
        "off": False,
        "none": None,
        "zero": 0,
        "empty": "",
        "tags": ["a", "b"],
        "mixed": [1, "x", None, 2.0],
        "map": {"k": 1, "n": None},
        "a-b": "dash",
        "json": '{"a": [1, {"b": true}]}',
        "b64": "aGVsbG8",
        "at": "2024-02-03T04:05:06Z",
        "items": [{"sku": "x", "qty": 2}, {"sku": "y", "qty": 5}],
        "dt": dt.datetime(2024, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "day": dt.date(2024, 2, 3),
        "raw": b"hello",
        "cost": decimal.Decimal("1.50"),
        "uid": uuid.UUID(int=5),
        "set": {3, 1, 2},
        "pair": (1, 2),
    },
}
ASYNC = {"name": "shop/paid", "data": {"id": 150.0, "name": "Ann", "none": None}}
NOW = 1_706_933_106_000  # 2024-02-03T04:05:06Z


def value(text, event=EVENT, async_=ASYNC):
    program = cel(text)
    fast = program.evaluate(event, async_, now_ms=NOW)
    record = program.evaluate_reference(event, async_, now_ms=NOW)
    assert (fast, type(fast)) == (record, type(record))
    return fast


def fails(text):
    program = cel(text)
    with pytest.raises(ExpressionError, match="has no value here"):
        program.evaluate(EVENT, ASYNC, now_ms=NOW)
    with pytest.raises(ExpressionError):
        program.evaluate_reference(EVENT, ASYNC, now_ms=NOW)
    assert program.matches(EVENT, ASYNC, now_ms=NOW) is False


@pytest.mark.parametrize(
    "text",
    [
        "event.data.nope == null",
        "event.data.none == null",
        "null == event.nope.deeper.still",
        "event.data.name.not.a.map == null",
        'event.data["nope"] == null',
        "event.data.tags[9] == null",
        "event.data.tags[-1] == null",
        "event.data.nope != 1",
        "event.data.nope != async.data.nope",
        "event.data.none != async.data.none",
        "event.data.name != null",
        "!(event.data.nope == async.data.nope)",
        "!(event.data.nope < 1)",
        "!(event.data.nope > 1)",
        "!(event.data.nope <= 1)",
        "!(1 >= event.data.nope)",
        "event.data.nope + 1 == 1",
        'event.data.nope + "x" == "x"',
        "event.data.nope - 1 == null",
        "-event.data.nope == null",
        "size(event.data.nope) == 0",
        '!event.data.nope.startsWith("a")',
        '!(event.data.nope in ["a"])',
        '!("a" in event.data.nope)',
        "!event.data.nope.exists(i, true)",
        "event.data.nope.all(i, false)",
        "size(event.data.nope.map(i, i)) == 0",
        "lowercase(event.data.nope) == null",
        "int(event.data.nope) == null",
        "timestamp(event.data.nope) == null",
    ],
)
def test_missing_fields_are_null_never_an_error(text):
    assert value(text) is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.data.nope == async.data.nope", False),
        ("event.data.none == async.data.none", False),
        ("event.data.nope == 1", False),
        ("event.data.map == {'k': 1, 'n': null}", True),
        ("null == null", True),
        ("null in event.data.mixed", True),
    ],
)
def test_only_a_written_null_equals_null_and_containers_compare_by_structure(text, expected):
    assert value(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("150 == 150.0", True),
        ("150 > 99.5", True),
        ("event.data.id == async.data.id", True),
        ("event.data.id > event.data.price", True),
        ("2 in event.data.mixed", True),
        ("9007199254740993 == 9007199254740992.0", False),
        ("true == 1", False),
        ("event.data.on != 1", True),
        ("false == 0.0", False),
        ("true in [1, 2]", False),
        ("event.data.on == true", True),
        ("'1' == 1", False),
        ("1 + 0.5", 1.5),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("7 / 2.0", 3.5),
        ("1-1", 0),
    ],
)
def test_numbers_compare_across_types_and_bool_is_not_one(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.data.id + '-' + event.data.name", "150-Ann"),
        ("async.data.id + '-'", "150-"),
        ("'p' + event.data.price", "p99.5"),
        ("'on:' + event.data.on", "on:true"),
        ("event.data.nope + '-' + event.data.name", "-Ann"),
        ("[1] + ['a']", [1, "a"]),
    ],
)
def test_plus_joins_when_one_side_is_a_string(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.data.nope || 'anon'", "anon"),
        ("event.data.empty || event.data.name", "Ann"),
        ("event.data.zero || event.data.off", False),
        ("event.data.on && event.data.name", "Ann"),
        ("event.data.nope && true", None),
        ("!event.data.zero && !event.data.empty", True),
        ("event.data.tags ? 'some' : 'none'", "some"),
        ("event.data.nope ? 1 : 2", 2),
        ("'a' < 1 || true", True),
        ("'a' < 1 && false", False),
        ("true || 'a' < 1", True),
        ("event.data.items.exists(i, i.qty > 4)", True),
        ("['a', 1].exists(x, x > 0)", True),
        ("['a', 1].all(x, x > 1)", False),
    ],
)
def test_logic_takes_values_as_javascript_does_and_absorbs_errors(text, expected):
    result = value(text)
    assert (result, type(result)) == (expected, type(expected))


@pytest.mark.parametrize(
    "text",
    [
        "'a' < 1",
        "true < 2",
        "[1] > [0]",
        "true + 1",
        "{'a': 1} + 'x'",
        "1 / 0",
        "1 % 0",
        "1.0 / 0",
        "5.0 % 2.0",
        "9223372036854775807 + 1",
        "-true",
        "size(1)",
        "'a' in 'abc'",
        "event.data.id.startsWith('1')",
        "event.data.name.map(i, i)",
        "int('x')",
        "bool('maybe')",
        "b64decode('!')",
        "json_parse('{')",
        "date('soon')",
        "now_plus('soon')",
        "'a' < 1 || false",
        "'a' < 1 && true",
        "['a'].exists(x, x > 0)",
        "['a'].map(x, -x)",
        "event.data.name.matches(event.data.tags)",
    ],
)
def test_type_errors_have_no_value_and_match_nothing(text):
    fails(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lowercase(event.data.name)", "ann"),
        ("uppercase(event.data.name)", "ANN"),
        ("event.data.name.lowercase()", "ann"),
        ("b64decode(event.data.b64)", "hello"),
        ("json_parse(event.data.json).a[1].b", True),
        ("date(event.data.at) == now()", True),
        ("date(event.ts) < now()", True),
        ("date('2024-02-03') < now()", True),
        ("now_plus('1h') > now() && now_minus('1h') < now()", True),
        ("now_plus('1h30m') - now() == duration('5400s')", True),
        ("now()", dt.datetime(2024, 2, 3, 4, 5, 6, tzinfo=dt.UTC)),
        ("[now()][0] == now()", True),
        ("timestamp(event.data.at).getFullYear()", 2024),
        ("timestamp(event.data.dt) == now()", True),
        ("size('héé') + size([1]) + size({'a': 1})", 5),
        ("event.data.name.contains('nn')", True),
        ("event.data.tags.contains('a')", True),
        ("event.data.name.startsWith('A') && event.data.name.endsWith('n')", True),
        ("event.data.name.matches('^A.+$')", True),
        ("int('12') + int(3.9) + int('0x10')", 31),
        ("double('1.5')", 1.5),
        ("string(150.0) + string(true)", "150true"),
        ("bool('true')", True),
        ("type(event.data.name) == string", True),
        ("type(1) == double", False),
        ("dyn(1)", 1),
        ("1u + 2u == 3u && 3u == 3", True),
        ("b'abc' == bytes('abc')", True),
        ("{1: 'one', 2: 'two'}[1]", "one"),
        ("event.data['a-b']", "dash"),
        ("event.data.tags[1.0]", "b"),
        ('r"\\d" + "\\t\\u0041"', "\\d\tA"),
        ("'k' in event.data.map && !('z' in event.data.map)", True),
        ("event.data.name in ['Ann', 'Bob']", True),
    ],
)
def test_functions(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("has(event.data.name) && has(event.data.none)", True),
        ("has(event.data.nope) || has(event.data.nope.deeper)", False),
        ("event.data.tags.all(t, size(t) == 1)", True),
        ("event.data.items.exists_one(i, i.sku == 'x')", True),
        ("event.data.items.filter(i, i.qty > 2).map(i, i.sku)", ["y"]),
        ("event.data.items.map(i, i.qty > 2, i.sku + '!')", ["y!"]),
        ("event.data.map.exists(k, k == 'n')", True),
        ("[1, 2].map(x, [3, 4].map(y, x * y))", [[3, 4], [6, 8]]),
        ("[1, 2].map(x, [x].map(x, x + 1))", [[2], [3]]),
    ],
)
def test_macros(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("dt", "2024-02-03T04:05:06+00:00"),
        ("day", "2024-02-03"),
        ("raw", "aGVsbG8="),
        ("cost", "1.50"),
        ("uid", "00000000-0000-0000-0000-000000000005"),
        ("set", [1, 2, 3]),
        ("pair", [1, 2]),
    ],
)
def test_ext_types_appear_as_their_json_forms(field, expected):
    assert value(f"event.data.{field}") == expected
    assert value(f"{{'x': event.data.{field}}}") == {"x": expected}
    assert value("event.data")[field] == expected


def test_unsigned_64_bit_ints_compare_exactly():
    event = {"data": {"big": 2**64 - 1}}
    for test in (f"event.data.big > {2**63 - 1}", "event.data.big == event.data.big"):
        assert value(test, event) is True


def test_an_int_no_event_can_hold_is_an_error_not_a_crash():
    with pytest.raises(ExpressionError, match="cannot hold"):
        cel("event.data.big == 1").evaluate_reference({"data": {"big": 2**70}})


def test_no_async_event_means_null():
    assert cel("async.data.id == null").matches(EVENT)
    assert cel("event.data.id == null").matches(None)


def test_matches_only_exact_truth():
    assert not cel("event.data.name").matches(EVENT)
    assert not cel("1").matches(EVENT)
    assert cel("event.data.on").matches(EVENT)


def test_the_time_must_be_given():
    for call in (cel("now()").evaluate, cel("now()").matches, cel("now()").evaluate_reference):
        with pytest.raises(ValueError, match="now_ms"):
            call(EVENT)


def test_a_chain_of_hundreds_of_terms_needs_no_recursion():
    text = " && ".join(f"event.data.id != {number}" for number in range(1000, 1400))
    assert value(text + " && event.data.on") is True
    assert value(" || ".join(f"event.data.id == {n}" for n in range(400)) + " || true") is True


def test_an_unreadable_value_is_an_error_of_the_expression():
    with pytest.raises(ExpressionError, match="object has no CEL form"):
        cel("event.data.x == 'a'").evaluate({"data": {"x": object()}})
