"""Flow control as `create_function` takes it: the checks that need the whole function."""

import inspect
from typing import Any

import pytest

from stepwell import (
    Batch,
    Cancel,
    Client,
    Concurrency,
    Debounce,
    Function,
    Limits,
    Priority,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
    TriggerEvent,
)
from stepwell.errors import ConfigError, ExpressionError
from stepwell.flow import FlowControl
from stepwell.flow_args import FlowArgs
from stepwell.serde import pack, unpack

KEY = "event.data.user"
BAD = "event.data.x =="
BATCH = Batch(max_size=10)


async def handler(ctx):
    return 1


def make(**options: Any) -> Function[Any]:
    limits = options.pop("limits", None)
    return Client(app_id="shop", limits=limits).create_function(fn_id="fulfil", **options)(handler)


def refused(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make(**options)
    return str(caught.value)


def test_without_options_there_is_no_flow_control():
    function = make()
    assert function.flow == FlowControl()
    assert not function.distribute
    names = {"batch", "cancel", "concurrency", "debounce", "idempotency", "priority"}
    names |= {"rate_limit", "singleton", "throttle", "timeouts"}
    assert not names & function.config().keys()


def test_every_option_reaches_the_registry():
    options: dict[str, Any] = {
        "cancel": [Cancel("a", match="data.id"), Cancel("b")],
        "concurrency": [Concurrency(5), Concurrency(2, key=KEY, weight="2")],
        "debounce": Debounce("30s"),
        "idempotency": "event.data.order",
        "priority": Priority("event.data.urgency"),
        "rate_limit": RateLimit(10, "1h"),
        "singleton": Singleton("cancel", key=KEY),
        "throttle": Throttle(10, "1m", key=KEY),
        "timeouts": Timeouts(start="10m", run="2h"),
    }
    config = make(**options).config()
    assert unpack(pack(config)) == config
    for name in ("debounce", "rate_limit", "singleton", "throttle", "timeouts"):
        assert config[name] == options[name].config()
    for name in ("cancel", "concurrency"):
        assert config[name] == [one.config() for one in options[name]]
    assert config["idempotency"] == "event.data.order"
    assert config["priority"] == "event.data.urgency"
    assert make(batch_events=BATCH).config()["batch"] == BATCH.config()


def test_concurrency_is_a_number_an_entry_or_a_list():
    for given in (5, Concurrency(5), [Concurrency(5)], (Concurrency(5),)):
        assert make(concurrency=given).flow.concurrency == (Concurrency(5),)
    assert make(concurrency=[]).flow.concurrency == ()
    assert make(concurrency=None).flow.concurrency == ()


def test_one_cancel_needs_no_list():
    assert make(cancel=Cancel("a")).flow.cancel == (Cancel("a"),)


@pytest.mark.parametrize(
    ("concurrency", "distributed"),
    [
        (5, True),
        (0, False),
        (Concurrency("event.data.n"), True),
        (Concurrency("event.data.n", level="run"), False),
        (Concurrency(5, level="run"), False),
        ([Concurrency(5, level="run"), Concurrency(5)], True),
        ([Concurrency(0), Concurrency(5, level="run")], False),
    ],
)
def test_branches_are_planned_where_steps_are_counted(concurrency, distributed):
    function = make(concurrency=concurrency)
    assert function.distribute is distributed
    assert function.config()["distribute"] is distributed
    assert make(concurrency=concurrency, distribute=True).distribute


def test_on_failure_has_no_flow_control():
    client = Client(app_id="shop")
    client.create_function(
        fn_id="fulfil",
        on_failure=handler,
        distribute=True,
        concurrency=5,
        cancel=Cancel("a"),
        timeouts=Timeouts(finish="1h"),
        idempotency=KEY,
    )(handler)
    failure = client.functions["fulfil-failure"]
    assert failure.flow == FlowControl()
    assert not failure.distribute
    assert failure.config().keys() == make().config().keys()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_events": 10}, 'batch_events=: 10; write Batch(max_size=100, timeout="5s"), or'),
        ({"debounce": "30s"}, "debounce=: '30s'; write Debounce(period=\"30s\"), or leave it out"),
        ({"priority": "1"}, "priority=: '1'; write Priority(run="),
        ({"rate_limit": 5}, 'rate_limit=: 5; write RateLimit(limit=10, period="1h"), or'),
        ({"singleton": "skip"}, "singleton=: 'skip'; write Singleton(mode=\"skip\"), or leave"),
        ({"throttle": RateLimit(1, "1h")}, "period='1h', key=None); write Throttle(limit=100, "),
        ({"timeouts": "1h"}, 'timeouts=: \'1h\'; write Timeouts(start="10m", finish="2h"), or'),
        (
            {"idempotency": ""},
            "idempotency=: ''; write an expression such as \"event.data.order_id",
        ),
        ({"idempotency": 5}, "idempotency=: 5; write an expression such as"),
        ({"cancel": "a"}, "cancel=: 'a'; write Cancel(event=\"shop/order.cancelled\", match="),
        ({"cancel": [Cancel("a"), 5]}, "cancel=: 5; write Cancel("),
        ({"cancel": [Cancel(f"a{n}") for n in range(6)]}, "cancel=: 6; at most 5 of them; join"),
        ({"cancel": [Cancel("a")] * 2}, "a Cancel is there twice; write each once"),
        ({"concurrency": "5"}, "concurrency=: '5'; write a number, Concurrency(limit=10), or a"),
        ({"concurrency": True}, "concurrency=: True; write a number, Concurrency(limit=10), or"),
        ({"concurrency": [5]}, "concurrency=: 5; write a number, Concurrency(limit=10), or a list"),
        ({"concurrency": -1}, "concurrency=: Concurrency(limit=): -1; write an int from 0"),
        (
            {"concurrency": [Concurrency(n, key=f"'{n}'") for n in range(3)]},
            "concurrency=: 3; at most 2 entries; leave the widest out",
        ),
        (
            {"concurrency": [Concurrency(1, key=KEY), Concurrency(2, key=KEY)]},
            "two entries have the same key, scope and level; keep the one with the lower limit",
        ),
        (
            {
                "concurrency": [
                    Concurrency(1, key=KEY, weight="1"),
                    Concurrency(2, key="event.data.org", weight="2"),
                ]
            },
            "a run has one weight; write weight= in one entry only",
        ),
    ],
)
def test_wrong_options_name_function_and_argument(options, says):
    text = refused(**options)
    assert text.startswith(f"function 'fulfil': {next(iter(options))}=: ")
    assert says in text


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("cancel", Cancel("a")),
        ("debounce", Debounce("30s")),
        ("priority", Priority("1")),
        ("singleton", Singleton("skip")),
    ],
)
def test_what_a_batch_excludes(name, option):
    text = refused(batch_events=BATCH, **{name: option})
    assert text.startswith("function 'fulfil': batch_events=: Batch(max_size=10, ")
    assert text.endswith(f"; it can't be combined with {name}=; leave one of the two out")


def test_what_goes_with_a_batch():
    function = make(
        batch_events=BATCH,
        cancel=[],
        concurrency=5,
        idempotency=KEY,
        rate_limit=RateLimit(1, "1h"),
        throttle=Throttle(1, "1s"),
        timeouts=Timeouts(finish="1h"),
    )
    config = function.config()
    assert {
        "batch",
        "concurrency",
        "idempotency",
        "rate_limit",
        "throttle",
        "timeouts",
    } <= config.keys()
    assert "cancel" not in config


WITH_EXPRESSIONS = [
    ("batch_events", "Batch(key=): ", lambda text: Batch(10, key=text)),
    ("batch_events", "Batch(if_exp=): ", lambda text: Batch(10, if_exp=text)),
    ("concurrency", "Concurrency(limit=): ", lambda text: Concurrency(text)),
    ("concurrency", "Concurrency(key=): ", lambda text: Concurrency(1, key=text)),
    ("concurrency", "Concurrency(weight=): ", lambda text: Concurrency(1, key=KEY, weight=text)),
    ("debounce", "Debounce(key=): ", lambda text: Debounce("1s", key=text)),
    ("idempotency", "", lambda text: text),
    ("priority", "Priority(run=): ", lambda text: Priority(text)),
    ("rate_limit", "RateLimit(limit=): ", lambda text: RateLimit(text, "1s")),
    ("rate_limit", "RateLimit(key=): ", lambda text: RateLimit(1, "1s", key=text)),
    ("singleton", "Singleton(key=): ", lambda text: Singleton("skip", key=text)),
    ("throttle", "Throttle(limit=): ", lambda text: Throttle(text, "1s")),
    ("throttle", "Throttle(key=): ", lambda text: Throttle(1, "1s", key=text)),
    ("trigger", "", lambda text: TriggerEvent("a", text)),
]


@pytest.mark.parametrize(("argument", "field", "option"), WITH_EXPRESSIONS)
def test_an_expression_is_over_the_event_and_compiles(argument, field, option):
    make(**{argument: option("event.data.x == 1")})
    for text, says in [
        (BAD, "invalid expression at line 1: it ends too early"),
        ("async.data.x", "unknown variable 'async'; known here: event"),
    ]:
        with pytest.raises(ExpressionError) as caught:
            make(**{argument: option(text)})
        assert str(caught.value).startswith(f"function 'fulfil': {argument}=: {field}")
        assert says in str(caught.value)
        assert caught.value.expression == text


def test_a_cancels_expression_is_over_both_events():
    make(cancel=Cancel("a", if_exp="event.data.id == async.data.id"))
    with pytest.raises(ExpressionError) as caught:
        make(cancel=Cancel("a", if_exp=BAD))
    assert str(caught.value).startswith("function 'fulfil': cancel=: Cancel(if_exp=): invalid")
    with pytest.raises(ExpressionError) as caught:
        make(cancel=Cancel("a", if_exp="candidate.data.id == 1"))
    assert "unknown variable 'candidate'; known here: async, event" in str(caught.value)
    make(cancel=Cancel("a", match="data.in.order_id"))


def test_limits_move_the_numbers():
    few = Limits(cancels=1, concurrency=1)
    assert "at most 1 of them" in refused(cancel=[Cancel("a"), Cancel("b")], limits=few)
    two = [Concurrency(5), Concurrency(5, level="run")]
    assert "at most 1 entries" in refused(concurrency=two, limits=few)
    make(cancel=[Cancel(f"a{n}") for n in range(20)], limits=Limits(cancels=20))


def test_an_unknown_argument():
    with pytest.raises(TypeError, match="unexpected keyword argument 'ratelimit'"):
        make(ratelimit=RateLimit(1, "1h"))


def test_the_client_takes_what_there_is():
    taken = inspect.signature(Client.create_function).parameters
    assert FlowArgs.__optional_keys__ <= taken.keys()
    assert all(taken[name].default is None for name in FlowArgs.__optional_keys__)
