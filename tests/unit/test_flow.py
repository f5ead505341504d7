"""The flow-control options by themselves: what each refuses, and its form in the registry."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import (
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    Priority,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
)
from stepwell.errors import ConfigError
from stepwell.flow import FlowControl
from stepwell.serde import pack, unpack

S, M, H, D = 1_000, 60_000, 3_600_000, 86_400_000
KEY = "event.data.user"

EXAMPLE = ", or a string: an expression such as \"event.data.plan == 'pro' ? 10 : 2\""

GOOD: dict[type[Any], dict[str, Any]] = {
    Batch: {"max_size": 10},
    Cancel: {"event": "a"},
    Concurrency: {"limit": 5},
    Debounce: {"period": "30s"},
    Priority: {"run": KEY},
    RateLimit: {"limit": 5, "period": "1h"},
    Singleton: {"mode": "skip"},
    Throttle: {"limit": 5, "period": "1m"},
    Timeouts: {},
}
DURATIONS = [
    (Batch, "timeout", "7d"),
    (Cancel, "timeout", "366d"),
    (Debounce, "period", "7d"),
    (RateLimit, "period", "1d"),
    (Throttle, "period", "7d"),
    (Timeouts, "start", "366d"),
    (Timeouts, "finish", "366d"),
    (Timeouts, "run", "366d"),
]
NUMBERS = [
    (Batch, "max_size", 2, 10_000),
    (Concurrency, "limit", 0, 1_000_000_000),
    (RateLimit, "limit", 1, 1_000_000),
    (Throttle, "limit", 1, 1_000_000_000),
    (Throttle, "burst", 1, 1_000_000_000),
]
BY_EVENT = [Concurrency, RateLimit, Throttle]
"""Options whose limit may be an expression."""

EXPRESSIONS = [
    (Batch, "key"),
    (Batch, "if_exp"),
    (Cancel, "if_exp"),
    (Concurrency, "key"),
    (Debounce, "key"),
    (Priority, "run"),
    (RateLimit, "key"),
    (Singleton, "key"),
    (Throttle, "key"),
]
WORDS = [
    (Concurrency, "scope", "'fn', 'env', 'account'"),
    (Concurrency, "level", "'step', 'run'"),
    (Singleton, "mode", "'skip', 'cancel'"),
]


def refused(option: type[Any], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        option(**{**GOOD[option], **options})
    return str(caught.value)


@pytest.mark.parametrize(("option", "argument", "longest"), DURATIONS)
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (999, "999 is too short; the least is 1s"),
        (0, "0 is too short"),
        (-1, "-1 is negative; write"),
        ("367d", "'367d' is too long; the most is "),
        ("5 minutes", "'5 minutes' is not a duration; write \"30s\""),
        (1.5, "1.5 is a float, not whole milliseconds or a string"),
        (True, "True is a bool, not a duration"),
        ([], "[] is a list, not a duration"),
    ],
)
def test_wrong_durations(option, argument, longest, value, says):
    text = refused(option, **{argument: value})
    assert text.startswith(f"{option.__name__}({argument}=): {says}")
    if value == "367d":
        assert text.endswith(f"the most is {longest}")


@pytest.mark.parametrize(("option", "argument", "longest"), DURATIONS)
def test_the_shortest_and_longest_duration(option, argument, longest):
    for value in ("1s", timedelta(days=1), longest):
        assert option(**{**GOOD[option], argument: value})


@pytest.mark.parametrize(("option", "argument", "least", "most"), NUMBERS)
def test_wrong_numbers(option, argument, least, most):
    by_event = argument == "limit" and option in BY_EVENT
    for value in (least - 1, most + 1, True, 5.0, *([] if by_event else ["5"])):
        text = refused(option, **{argument: value})
        assert text.startswith(f"{option.__name__}({argument}=): {value!r}; write an int from ")
        assert f" to {most:,}" in text
        assert text.endswith(EXAMPLE) is by_event
    for value in (least, most):
        assert option(**{**GOOD[option], argument: value})


@pytest.mark.parametrize("option", BY_EVENT)
def test_a_limit_may_be_an_expression(option):
    text = "event.data.plan == 'pro' ? 10 : 2"
    assert option(**{**GOOD[option], "limit": text}).config()["limit"] == text
    assert refused(option, limit=" ").startswith(
        f"{option.__name__}(limit=): ' ' is not an expression; write an expression such as"
    )


def test_a_limit_of_0_is_said_to_be_none():
    assert "write an int from 0 (no limit) to" in refused(Concurrency, limit=-1)


@pytest.mark.parametrize(("option", "argument"), EXPRESSIONS)
@pytest.mark.parametrize("value", ["", "  ", 5, b"a"])
def test_what_is_no_expression(option, argument, value):
    text = refused(option, **{argument: value})
    assert text.startswith(
        f'{option.__name__}({argument}=): {value!r} is not an expression; write one such as "event.'
    )


@pytest.mark.parametrize(("option", "argument", "known"), WORDS)
@pytest.mark.parametrize("value", ["global", "", 5, []])
def test_wrong_words(option, argument, known, value):
    said = refused(option, **{argument: value})
    assert said == f"{option.__name__}({argument}=): {value!r}; write one of {known}"


@pytest.mark.parametrize(
    ("option", "options", "says"),
    [
        (
            Concurrency,
            {"scope": "env"},
            "Concurrency(key=): missing, but scope='env' counts together the functions that",
        ),
        (Concurrency, {"weight": "2"}, "Concurrency(weight=): without key= there is nobody"),
        (Concurrency, {"key": KEY, "weight": 2}, "Concurrency(weight=): 2 is not an expression"),
        (
            Debounce,
            {"timeout": "29s"},
            "Debounce(timeout=): '29s' is shorter than period='30s', which would then never pass",
        ),
        (Debounce, {"timeout": 5}, "Debounce(timeout=): 5 is too short; the least is 1s"),
        (Debounce, {"collect": 1}, "Debounce(collect=): 1; write True or False"),
        (Priority, {"run": None}, "Priority(run=): None is not an expression; write one such as"),
        (Cancel, {"event": ""}, "Cancel(event=): '' is not an event name; write a string such as"),
        (Cancel, {"event": 5}, "Cancel(event=): 5 is not an event name"),
        (Cancel, {"event": "x" * 513}, "Cancel(event=): 513 characters, the most is 512"),
        (
            Cancel,
            {"event": "shop/*"},
            "Cancel(event=): 'shop/*': wildcards are for triggers; write one Cancel for each exact",
        ),
        (
            Cancel,
            {"match": "data.id", "if_exp": "true"},
            'Cancel(match=): there is if_exp= as well; write one of the two, or if_exp="event.',
        ),
        (Cancel, {"match": "data['id']"}, "Cancel(match=): \"data['id']\" is not the dotted name"),
        (Cancel, {"match": "dat.id"}, "Cancel(match=): 'dat.id' is not the dotted name of a field"),
        (Cancel, {"match": "order_id"}, "Cancel(match=): 'order_id' is not the dotted name"),
        (
            Cancel,
            {"event": "stepwell/stop"},
            "Cancel(event=): 'stepwell/stop': no event has a name that begins with 'stepwell/'; write",
        ),
        (Cancel, {"match": ""}, "Cancel(match=): '' is not the dotted name of a field"),
        (Cancel, {"match": 5}, "Cancel(match=): 5 is not the dotted name of a field"),
        (
            Timeouts,
            {"finish": "1h", "run": "1h"},
            "Timeouts(run=): it is another name for finish=, which is there as well; write finish=",
        ),
    ],
)
def test_what_else_is_refused(option, options, says):
    assert refused(option, **options).startswith(says)


@pytest.mark.parametrize(
    ("option", "config"),
    [
        (
            Concurrency(5),
            {"limit": 5, "key": None, "scope": "fn", "level": "step", "weight": None},
        ),
        (
            Concurrency(limit=1, key=KEY, scope="account", level="run", weight="2"),
            {"limit": 1, "key": KEY, "scope": "account", "level": "run", "weight": "2"},
        ),
        (Throttle(5, "1m"), {"limit": 5, "period": M, "burst": 1, "key": None}),
        (
            Throttle(limit=5, period=timedelta(hours=1), burst=3, key=KEY),
            {"limit": 5, "period": H, "burst": 3, "key": KEY},
        ),
        (RateLimit(1, 5_000), {"limit": 1, "period": 5 * S, "key": None}),
        (RateLimit(limit=1, period="24h", key=KEY), {"limit": 1, "period": D, "key": KEY}),
        (
            Debounce("30s"),
            {"period": 30 * S, "key": None, "timeout": None, "collect": False},
        ),
        (
            Debounce(period="30s", key=KEY, timeout="30s", collect=True),
            {"period": 30 * S, "key": KEY, "timeout": 30 * S, "collect": True},
        ),
        (Batch(100), {"max_size": 100, "timeout": M, "key": None, "if": None}),
        (
            Batch(max_size=2, timeout="5s", key=KEY, if_exp="event.data.n > 1"),
            {"max_size": 2, "timeout": 5 * S, "key": KEY, "if": "event.data.n > 1"},
        ),
        (Singleton("skip"), {"mode": "skip", "key": None}),
        (Singleton(mode="cancel", key=KEY), {"mode": "cancel", "key": KEY}),
        (Cancel("a/b"), {"event": "a/b", "if": None, "match": None, "timeout": None}),
        (
            Cancel(event="a", match="data.id", timeout="2d"),
            {"event": "a", "if": None, "match": "data.id", "timeout": 2 * D},
        ),
        (
            Cancel(event="a", if_exp="async.data.n > 1"),
            {"event": "a", "if": "async.data.n > 1", "match": None, "timeout": None},
        ),
        (Timeouts(), {"start": None, "finish": None}),
        (Timeouts(start="10m", finish="2h"), {"start": 10 * M, "finish": 2 * H}),
        (Timeouts(run="2h"), {"start": None, "finish": 2 * H}),
    ],
)
def test_the_registry_gets_plain_values(option, config):
    assert option.config() == config
    assert unpack(pack(config)) == config


def test_none_where_the_inngest_package_has_it():
    assert Concurrency(5, scope=None) == Concurrency(5)
    assert Throttle(5, "1m", burst=None) == Throttle(5, "1m")


def test_options_are_values():
    for option, options in GOOD.items():
        one = option(**options)
        assert one == option(**options)
        assert hash(one) == hash(option(**options))
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, next(iter(one.__slots__)), 1)


def test_how_a_cancels_condition_was_written_makes_no_difference():
    assert Cancel("a").expression is None
    assert Cancel("a", if_exp="true").expression == "true"
    assert Cancel("a", match="data.id").expression == "event.data.id == async.data.id"


def test_an_option_not_used_is_not_in_the_registry():
    assert FlowControl().config() == {}
    assert FlowControl(timeouts=Timeouts()).config() == {}
    assert FlowControl(priority=Priority("2"), idempotency=KEY).config() == {
        "priority": "2",
        "idempotency": KEY,
    }


@given(st.integers(1_000, D), st.integers(1, 1_000_000))
def test_milliseconds_stay_what_they_are(period, limit):
    for option in (Throttle, RateLimit):
        config = option(limit=limit, period=period).config()
        assert (config["limit"], config["period"]) == (limit, period)
        assert option(limit=limit, period=timedelta(milliseconds=period)).config() == config
