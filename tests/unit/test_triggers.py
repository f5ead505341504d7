from typing import Any

import pytest

from stepwell import Client, Limits
from stepwell.errors import ConfigError
from stepwell.triggers import TriggerCron, TriggerEvent


@pytest.mark.parametrize(
    ("event", "yes", "no"),
    [
        ("shop/order.created", "shop/order.created", "shop/order.created2"),
        ("shop/*", "shop/order.created", "shopping/x"),
        ("shop/order.*", "shop/order.created", "shop/orders"),
        ("*", None, None),
    ],
)
def test_names_and_wildcards(event, yes, no):
    if yes is None:
        with pytest.raises(ConfigError):
            TriggerEvent(event)
        return
    trigger = TriggerEvent(event=event)
    assert trigger.matches(yes)
    assert not trigger.matches(no)
    assert trigger.prefix == (event[:-1] if event.endswith("*") else None)


@pytest.mark.parametrize("event", ["a*", "a/*/b", "*/a", "a.**", "*", "a/b*"])
def test_a_star_is_last_and_after_a_separator(event):
    with pytest.raises(ConfigError, match=r"may only be the last character, right after / or \."):
        TriggerEvent(event)


@pytest.mark.parametrize("event", ["", 5, None])
def test_what_is_no_name(event):
    with pytest.raises(ConfigError, match=r"TriggerEvent\(event=\): .* is not an event name"):
        TriggerEvent(event)


@pytest.mark.parametrize("event", ["stepwell/x", "stepwell/*"])
def test_a_name_that_no_event_has(event):
    with pytest.raises(ConfigError, match=r"TriggerEvent\(event=\): .* begins with 'stepwell/'"):
        TriggerEvent(event)


def test_a_name_too_long():
    with pytest.raises(ConfigError, match="513 characters, the most is 512"):
        TriggerEvent("x" * 513)


@pytest.mark.parametrize("expression", ["", "  ", 5])
def test_what_is_no_expression(expression):
    with pytest.raises(ConfigError, match=r"TriggerEvent\(expression=\)"):
        TriggerEvent("a", expression=expression)


async def handler(ctx):
    return 1


def make(trigger: Any, **settings: Any) -> Any:
    return Client(app_id="shop", **settings).create_function(fn_id="report", trigger=trigger)(
        handler
    )


def test_a_cron_has_its_defaults():
    assert TriggerCron("0 9 * * *").config() == {
        "cron": "0 9 * * *",
        "timezone": None,
        "jitter": None,
        "catchup": "last",
    }
    cron = TriggerCron(cron="@daily", jitter="30s", timezone="Europe/Paris", catchup="all")
    config = make([cron, TriggerEvent("a")]).config()
    assert config["triggers"] == [
        {"cron": "@daily", "timezone": "Europe/Paris", "jitter": 30_000, "catchup": "all"},
        {"event": "a", "expression": None},
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cron": ""}, "cron=): '' is not a cron expression; write one such as \"30 9 * * 1-5\""),
        ({"cron": " "}, "cron=): ' ' is not a cron expression"),
        ({"cron": 5}, "cron=): 5 is not a cron expression"),
        ({"jitter": 999}, "jitter=): 999 is too short; the least is 1s"),
        ({"jitter": "301s"}, "jitter=): '301s' is too long; the most is 5m"),
        ({"jitter": True}, "jitter=): True is a bool, not a duration"),
        ({"timezone": ""}, "timezone=): '' is not a zone; write a name such as \"Europe/Paris\""),
        ({"timezone": 5}, "timezone=): 5 is not a zone"),
        (
            {"cron": "TZ=Asia/Tokyo 0 9 * * *", "timezone": "Europe/Paris"},
            "timezone=): 'Europe/Paris', but cron='TZ=Asia/Tokyo 0 9 * * *' names a zone as well",
        ),
        ({"catchup": "some"}, "catchup=): 'some'; write one of 'none', 'last', 'all'"),
        ({"catchup": None}, "catchup=): None; write one of 'none', 'last', 'all'"),
    ],
)
def test_what_a_cron_refuses(options, says):
    with pytest.raises(ConfigError) as caught:
        TriggerCron(**{"cron": "0 9 * * *", **options})
    assert str(caught.value).startswith(f"TriggerCron({says}")


@pytest.mark.parametrize("jitter", ["1s", "5m", 60_000])
def test_the_bounds_of_a_jitter(jitter):
    assert TriggerCron("@daily", jitter=jitter).jitter_ms in {1_000, 60_000, 300_000}


@pytest.mark.parametrize(
    "cron",
    [
        TriggerCron("*/15 * * * *"),
        TriggerCron("0 9 * * MON-FRI"),
        TriggerCron("@hourly"),
        TriggerCron("TZ=Europe/Paris 30 2 * * *"),
        TriggerCron("30 2 * * *", timezone="America/New_York"),
    ],
)
def test_what_ticks(cron):
    assert make(cron).triggers == (cron,)


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        (TriggerCron("* * * *"), "'* * * *'"),
        (TriggerCron("* * * * * *"), "'* * * * * *'"),
        (TriggerCron("61 * * * *"), "'61 * * * *'"),
        (TriggerCron("0 0 30 2 *"), "'0 0 30 2 *'"),
        (TriggerCron("@sometimes"), "'@sometimes'"),
        (TriggerCron("@daily", timezone="Mars/Olympus"), "'Mars/Olympus'"),
        (TriggerCron("TZ=Mars/Olympus @daily"), "'Mars/Olympus'"),
        (TriggerCron("0 0 * * " + ",".join("0" * 130)), "267 characters, the most is 255"),
    ],
)
def test_what_never_ticks_is_found_at_definition(cron, says):
    with pytest.raises(ConfigError, match=r"^function 'report': trigger=: ") as caught:
        make([TriggerEvent("a"), cron])
    assert says in str(caught.value)
    assert "write" in str(caught.value)


@pytest.mark.parametrize(
    "second",
    [
        TriggerCron("TZ=Europe/Paris  @Daily"),
        TriggerCron("@daily", timezone="Europe/Paris", jitter="1m"),
        TriggerCron(" @daily ", timezone="Europe/Paris", catchup="none"),
    ],
)
def test_a_cron_is_there_once(second):
    first = TriggerCron("@daily", timezone="Europe/Paris")
    with pytest.raises(ConfigError, match="is there twice; write it once"):
        make([first, second])
    make([first, TriggerCron("@daily"), TriggerCron("@daily", timezone="Asia/Tokyo")])


def test_the_length_of_a_cron_is_a_limit():
    with pytest.raises(ConfigError, match="9 characters, the most is 8; write several TriggerCron"):
        make(TriggerCron("0 9 * * *"), limits=Limits(cron=8))
