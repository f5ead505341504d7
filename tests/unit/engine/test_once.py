"""Troubles that come with every event are logged once."""

from stepwell_engine.once import MOST, Once


def test_a_thing_is_said_once() -> None:
    once = Once()
    assert [once("f", "a"), once("f", "a"), once("f", "b"), once("g", "a")] == [
        True,
        False,
        True,
        True,
    ]


def test_what_is_made_of_data_does_not_pile_up() -> None:
    once = Once()
    assert sum(once(n) for n in range(MOST + 50)) == MOST
    assert not once("one more")
