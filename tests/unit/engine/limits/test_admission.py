"""What flow control asks of the scripts for an event: keys, bad keys, what is off, what is plain."""

import msgpack
import pytest

from stepwell_engine.limits.admission import Asked, Flow
from stepwell_engine.limits.event_keys import EventKeys, Key
from stepwell_engine.triggers import RegisteredFunction, TriggerIndex

MINUTE = 60_000


def function(number="1", fn="f", **config):
    return RegisteredFunction("shop", fn, number, 0, {"triggers": [{"event": "e"}], **config})


def admission(made, data=None, **more):
    assert made.flow is not None
    fields = {"name": "e", "data": data or {}, "id": "", "ts": 5, "v": None, "user": {}}
    return made.flow.admission(made, Asked(lambda: fields, 5, 1_000, **more))


def asked(made, data=None, **more):
    flow = admission(made, data, **more).flow
    return msgpack.unpackb(flow) if flow else {}


def rate(key=None):
    return {"rate_limit": {"limit": 3, "period": MINUTE, "key": key}}


def test_a_function_without_flow_control_is_plain():
    made = function(retries={}, singleton=None)
    assert made.flow is None
    assert TriggerIndex([made]).route("e").home == 0
    assert TriggerIndex([function(**rate())]).route("e").home == -1


def test_an_unreadable_option_is_an_error_of_the_function():
    with pytest.raises((ValueError, TypeError, KeyError)):
        function(rate_limit={"limit": None, "period": 1})


def test_each_option_says_what_it_needs():
    made = function(
        idempotency="event.data.k",
        rate_limit={"limit": 3, "period": MINUTE, "key": None},
        singleton={"mode": "skip", "key": None},
        debounce={"period": 1_000, "key": None, "timeout": None, "collect": True},
        priority="event.data.k",
    )
    flow = asked(made, {"k": 7})
    assert flow["rl"][1:] == [3, MINUTE]
    assert flow["sg"][1] == "skip"
    assert flow["db"][1:] == [1_000, 0, True]
    assert flow["pr"] == 7_000
    assert flow["f"] == ["fx", "g"]
    assert flow["ts"] == 5
    assert "v" not in flow
    assert "q" not in flow
    assert not admission(made, {"k": 7}).certain
    assert asked(made, {"k": 7}, invoked=True, quiet=True)["v"] == "1"


def test_a_batch_has_a_default_timeout_and_may_not_take_an_event():
    made = function(batch={"max_size": 5, "timeout": None, "key": None, "if": "event.data.bulk"})
    assert asked(made, {"bulk": True})["bt"][1:] == [5, MINUTE]
    for data in ({"bulk": False}, {"bulk": "yes"}):
        assert admission(made, data).flow == b""
    broken = admission(made, {})
    assert "bt" not in msgpack.unpackb(broken.flow)
    assert broken.faults[0].option == "batch_events"
    assert broken.certain


def test_faults_name_options_as_they_are_written():
    limit = {"limit": 1, "key": "event.data.a", "scope": "fn", "level": "step", "weight": None}
    weighted = {**limit, "key": "event.data.b", "weight": "event.data.w"}
    made = function(concurrency=[limit, weighted])
    assert [f.option for f in admission(made, {"b": 1}).faults] == ["concurrency"] * 2
    [fault] = admission(made, {"a": 1, "b": 1, "w": -1}).faults
    assert fault == ("concurrency", "weight='event.data.w' is -1 here, no number above 0")
    same = function(concurrency=[limit, {**limit, "level": "run"}])
    first, second = admission(same, {"a": 1}).key.split(",")
    assert first[2:] != second[2:], "each entry counts for itself"


def test_equal_keys_of_one_function_are_one():
    made, other = function(**rate("event.data.u")), function("2", "g", **rate("event.data.u"))
    first = asked(made, {"u": 150})["rl"][0]
    assert asked(made, {"u": 150.0})["rl"][0] == first
    assert asked(made, {"u": "150"})["rl"][0] != first
    assert asked(other, {"u": 150})["rl"][0] != first
    assert len(first) == 16


@pytest.mark.parametrize(
    "config",
    [
        rate("event.data.u"),
        {"idempotency": "event.data.u"},
        {"singleton": {"mode": "skip", "key": "event.data.u"}},
        {"debounce": {"period": 1_000, "key": "event.data.u"}},
    ],
    ids=["rate_limit", "idempotency", "singleton", "debounce"],
)
@pytest.mark.parametrize("data", [{}, {"u": False}], ids=["null", "false"])
def test_a_bad_key_turns_off_what_drops_or_merges(config, data):
    made = admission(function(**config), data)
    assert made.certain
    if data:
        assert made.flow == b""
        assert made.faults == ()
    else:
        assert set(msgpack.unpackb(made.flow)) == {"wn", "ts"}
        assert made.faults[0].option == next(iter(config))


def test_a_bad_key_of_a_batch_is_null():
    made = function(batch={"max_size": 5, "timeout": 1_000, "key": "event.data.u + {}"})
    first, second = admission(made, {"u": 1}), admission(made, {"u": 2})
    assert msgpack.unpackb(first.flow)["bt"] == msgpack.unpackb(second.flow)["bt"]
    assert first.faults[0].option == "batch_events"
    off = function(batch={"max_size": 5, "timeout": 1_000, "key": "event.data.u"})
    assert admission(off, {"u": False}).flow == b""


@pytest.mark.parametrize(
    ("value", "ahead"),
    [(5, 5_000), (-1.5, -1_500), (50_000, 43_200_000), (-50_000, -43_200_000), (0, 0), (False, 0)],
)
def test_priority_is_clipped_seconds(value, ahead):
    made = admission(function(priority="event.data.p"), {"p": value})
    assert (msgpack.unpackb(made.flow)["pr"] if made.flow else 0) == ahead
    assert made.certain
    assert made.faults == ()


@pytest.mark.parametrize("value", [None, "5", True, [1]])
def test_priority_that_is_no_number_is_none(value):
    made = admission(function(priority="event.data.p"), {"p": value})
    assert "pr" not in msgpack.unpackb(made.flow)
    assert made.faults[0].option == "priority"


def test_the_event_is_read_only_for_expressions():
    def unread():
        raise AssertionError

    made = function(**rate())
    assert made.flow is not None
    assert made.flow.admission(made, Asked(unread, 1, 1)).flow


def test_an_expression_that_does_not_compile_is_a_bad_key():
    keys = EventKeys("1", lambda: {"data": {}}, 0)
    assert keys.identity(Key.read("rate_limit", "event.", null=False)) is None
    assert keys.identity(Key.read("batch", "event.", null=True)) is not None
    assert [f.option for f in keys.faults] == ["rate_limit", "batch"]


def test_an_option_that_does_not_compile_is_a_fault_of_each_event():
    made = function(
        idempotency="event.", cancel=[{"event": "stop", "if": "event. ==", "timeout": None}]
    )
    first, second = admission(made), admission(made)
    assert [fault.option for fault in first.faults] == ["idempotency", "cancel"]
    assert first.faults == second.faults


def test_warnings_are_bounded():
    made = admission(function(**rate("event.data." + "u" * 2_000)), {})
    assert len(msgpack.unpackb(made.flow)["wn"]) == 500


def test_flow_reads_nothing_from_nothing():
    assert Flow.read({}) is None
    assert Flow.read({"concurrency": []}) is None


def limited(option, limit="event.data.n"):
    config = {"limit": limit, "period": MINUTE, "key": None}
    return function(**{option: [config] if option == "concurrency" else config})


def kind_of(made):
    return made.key[:2]


@pytest.mark.parametrize(("option", "kind"), [("concurrency", "c0"), ("throttle", "t-")])
@pytest.mark.parametrize("value", [1, 7, 7.0, 1_000_000_000])
def test_an_event_gives_the_limit_of_its_key(option, kind, value):
    made = admission(limited(option), {"n": value}, us=1_000_001)
    assert kind_of(made) == kind
    assert msgpack.unpackb(made.flow)["lm"] == f"1000001 {made.key[2:]}={int(value)}"
    assert made.certain
    assert made.faults == ()
    fixed = admission(limited(option, 7), {"n": 1})
    assert (fixed.key, fixed.flow) == (made.key, b"")


@pytest.mark.parametrize(("option", "kind"), [("concurrency", "c0"), ("throttle", "t-")])
@pytest.mark.parametrize(
    "value", [None, True, "5", 1.5, -1, 1_000_000_001, [], float("nan"), float("inf")]
)
def test_a_bad_limit_gives_none(option, kind, value):
    made = admission(limited(option), {"n": value})
    assert kind_of(made) == kind
    assert set(msgpack.unpackb(made.flow)) == {"wn", "ts"}
    assert [fault.option for fault in made.faults] == [option]
    assert made.certain


def test_0_is_no_limit_at_once_but_no_rate():
    made = admission(limited("concurrency"), {"n": 0}, us=5)
    assert msgpack.unpackb(made.flow)["lm"] == f"5 {made.key[2:]}=0"
    for option in ("throttle", "rate_limit"):
        [fault] = admission(limited(option), {"n": 0}).faults
        assert fault.option == option
        assert "limit='event.data.n' is 0 here, no whole number from 1 to 1,000,000" in fault.text


@pytest.mark.parametrize("option", ["concurrency", "throttle", "rate_limit"])
def test_a_limit_that_is_false_turns_the_option_off(option):
    made = admission(limited(option), {"n": False})
    assert (made.key, made.flow, made.faults) == ("", b"", ())


def test_a_rate_limit_judges_each_event_by_its_own():
    assert asked(limited("rate_limit"), {"n": 4.0})["rl"][1:] == [4, MINUTE]
    for value in (None, True, 1_000_001, 2.5):
        made = admission(limited("rate_limit"), {"n": value})
        assert set(msgpack.unpackb(made.flow)) == {"wn", "ts"}
        assert made.faults[0].option == "rate_limit"
        assert made.certain


def test_two_entries_may_have_their_limits_from_one_event():
    entry = {"key": "event.data.k", "scope": "env", "level": "run"}
    made = function(
        concurrency=[
            {"limit": "event.data.n", "key": None},
            {**entry, "limit": "event.data.n + 1"},
        ],
        throttle={"limit": "event.data.n + 2", "period": MINUTE, "key": None},
    )
    found = admission(made, {"n": 3, "k": 1}, us=9)
    ids = [gate[2:] for gate in found.key.split(",")]
    assert [gate[:2] for gate in found.key.split(",")] == ["c0", "R1", "t-"]
    lm = " ".join(f"{each}={n}" for each, n in zip(ids, (3, 4, 5), strict=True))
    assert msgpack.unpackb(found.flow)["lm"] == f"9 {lm}"
