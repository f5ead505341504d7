"""limits/cancel.py: how entries are bound to a run's event, and which events count."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.serde import unpack
from stepwell_engine.expressions import compile, index_key  # noqa: A004
from stepwell_engine.limits.admission import Asked, Flow
from stepwell_engine.limits.cancel import (
    MAX_SPAN_MS,
    PATH_MARK,
    Cancels,
    Registration,
    reason,
)
from stepwell_engine.limits.event_keys import EventKeys
from stepwell_engine.triggers import RegisteredFunction

ANY = "0" * 16


def bound(entry, data):
    event = {"name": "t/go", "data": data}
    keys = EventKeys("1", lambda: event, 0)
    cancels = Cancels.read({"cancel": [entry]})
    return cancels.admit(keys, lambda: event, 999), keys.faults


def test_a_match_is_bound_to_the_events_value():
    [found], _ = bound(
        {"event": "t/stop", "match": "data.id", "if": None, "timeout": 60_000}, {"id": 7}
    )
    prefix = b"~data.id\0" + index_key(7.0)
    assert found == (1_000, 60_001_000, "t/stop", prefix, "~data.id", {})


def test_no_condition_needs_no_event():
    cancels = Cancels.read({"cancel": [{"event": "t/stop"}]})
    keys = EventKeys("1", lambda: pytest.fail("it was read"), 0)
    found = cancels.admit(keys, lambda: pytest.fail("it was read"), 4)
    assert found == [(5, 0, "t/stop", f"~\0{ANY}".encode(), "~", {})]


def test_what_the_index_can_not_tell_is_kept():
    text = "event.data.a == async.data.x && async.data.y == 'lit' && async.data.n > event.data.n"
    [found], _ = bound({"event": "e", "if": text}, {"a": "é", "n": 1})
    assert found.path == "~data.x"
    assert found.prefix.endswith(index_key("é"))
    assert found.details == {
        "values": [["data.y", "lit"]], "residual": True, "expression": text,
    }  # fmt: skip
    assert Registration.read(found.write()) == found


@pytest.mark.parametrize("data", [{}, {"id": None}, {"id": float("nan")}])
def test_an_entry_that_can_not_match_is_left_out(data):
    assert bound({"event": "e", "match": "data.id"}, data) == ([], [])


def test_an_expression_of_a_newer_version_is_a_fault_and_no_more():
    found, [fault] = bound({"event": "e", "if": "what is this"}, {})
    assert (found, fault.option) == ([], "cancel")


@pytest.mark.parametrize(
    ("debounce", "span"),
    [(None, 0), ({"period": 5}, MAX_SPAN_MS), ({"period": 5, "timeout": 9}, 9)],
)
def test_how_long_after_its_event_a_run_may_come_to_be(debounce, span):
    config = {"cancel": [{"event": "e"}, {"event": "f"}], "debounce": debounce}
    cancels = Cancels.read(config)
    assert (cancels.span_ms, cancels.names) == (span, {"e", "f"})
    assert Cancels.read({}) is None


def test_which_events_count():
    def read(since, until):
        packed = msgpack.packb([since, until, "t/stop", "p", "~p", b""], use_bin_type=False)
        return Registration.read(packed)

    asked = read(1_000, 0)
    assert [asked.covers("t/stop", us) for us in (999, 1_000, 10**15)] == [False, True, True]
    assert not asked.covers("t/other", 1_000)
    assert asked.covers("t/stop", 990, skew_us=10)
    limited = read(1_000, 2_000)
    assert [limited.covers("t/stop", us) for us in (2_000, 2_001)] == [True, False]


def test_the_reason_names_the_event():
    assert unpack(reason("t/stop", "01J"))["message"] == "cancelled by event 't/stop' (01J)"


def test_only_functions_that_use_it_ask_for_anything():
    assert Flow.read({"cancel": [], "timeouts": {}}) is None
    function = RegisteredFunction("a", "f", "1", 0, {"cancel": [{"event": "e", "match": "data.x"}]})
    assert function.cancelling == {"e"}
    ask = function.flow.admission(function, Asked(lambda: {"data": {}}, 1, 0, us=5))
    assert (ask.flow, ask.certain) == (b"", True), "nothing can match: a plain run"
    ask = function.flow.admission(function, Asked(lambda: {"data": {"x": 1}}, 1, 0, us=5))
    flow = msgpack.unpackb(ask.flow, raw=True)
    assert (flow[b"us"], len(flow[b"cn"]), ask.certain) == (5, 1, True)
    fields = dict(zip(flow[b"f"][::2], flow[b"f"][1::2], strict=True))
    assert Registration.read(fields.pop(b"cn:0")).since == 6
    assert fields == {b"fx": b"c1"}
    assert b"to" not in flow


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from(["a", "b", 1.0]))
TEXTS = st.sampled_from(
    [
        "event.data.a == async.data.a",
        "async.data.a == event.data.b && async.data.b == event.data.a",
        "async.data.a == 1 && event.data.a == async.data.b",
        "async.data.b != event.data.b && async.data.a == event.data.a",
        "async.data.a == 'a' || event.data.a == async.data.a",
    ]
)
DATA = st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES})


@given(TEXTS, DATA, DATA)
def test_bound_entries_match_what_the_whole_expression_matches(text, trigger, data):
    """Index, kept values and residual together say what evaluation says."""
    event, other = {"data": trigger}, {"data": data}
    expected = compile(text).matches(event, other)
    found, _ = bound({"event": "e", "if": text}, trigger)
    if not found:
        assert not expected
        return
    [registration] = found
    path, details = registration.path, registration.details
    told = True
    plain = path[len(PATH_MARK) :]
    if plain:
        key = index_key(data.get(plain.removeprefix("data.")))
        told = key is not None and registration.prefix == f"{path}\0".encode() + key
    for where, value in details.get("values", ()):
        key = index_key(data.get(where.removeprefix("data.")))
        told = told and key is not None and key == index_key(value)
    if details.get("residual"):
        told = told and compile(details["expression"]).matches(event, other)
    assert told == expected
    assert Registration.read(registration.write()) == registration
