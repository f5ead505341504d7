import pytest

from stepwell.errors import ConfigError
from stepwell.triggers import TriggerEvent


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


def test_a_name_too_long():
    with pytest.raises(ConfigError, match="513 characters, the most is 512"):
        TriggerEvent("x" * 513)


@pytest.mark.parametrize("expression", ["", "  ", 5])
def test_what_is_no_expression(expression):
    with pytest.raises(ConfigError, match=r"TriggerEvent\(expression=\)"):
        TriggerEvent("a", expression=expression)
