from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import EventInvalidError, LimitExceededError
from stepwell.events import Event, check_sendable, decode_event, encode_event, encode_events
from stepwell.limits import DEFAULT_LIMITS, Limits

INTERNAL = "01HF7YAT00" + "0" * 16
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    st.builds(
        Event,
        name=TEXT,
        data=st.dictionaries(TEXT, st.integers(0, 9) | TEXT, max_size=3),
        id=TEXT,
        ts=st.integers(315_532_800_000, 4_102_444_799_999),
        v=st.none() | TEXT,
        user=st.dictionaries(TEXT, TEXT, max_size=2),
    )
)
def test_an_event_comes_back_equal(event):
    assert decode_event(encode_event(event), INTERNAL, 1) == event


def test_without_id_and_ts_it_has_the_internal_ones():
    data = encode_event(Event("a"))
    event = decode_event(data, INTERNAL, 1_700_000_000_005)
    assert (event.id, event.ts) == (INTERNAL, 1_700_000_000_005)
    assert decode_event(data, INTERNAL).ts == 1_700_000_000_000
    assert event.to_dict() == {
        "name": "a",
        "data": {},
        "id": INTERNAL,
        "ts": 1_700_000_000_005,
        "v": None,
        "user": {},
    }


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": ""}, "Event.name: empty"),
        ({"name": 5}, "Event.name: 5 is a int; write a string"),
        ({"name": "x" * 513}, "Event.name: 513 characters, the most is 512"),
        ({"name": "a", "data": [1]}, "Event.data: [1] is a list; write a dict"),
        ({"name": "a", "user": "u"}, "Event.user: 'u' is a str; write a dict"),
        ({"name": "a", "id": 7}, "Event.id: 7 is a int"),
        ({"name": "a", "id": "x" * 256}, "Event.id: 256 characters"),
        ({"name": "a", "v": 1}, "Event.v: 1 is a int"),
        ({"name": "a", "ts": 1.5}, "Event.ts: 1.5 is a float"),
        ({"name": "a", "ts": True}, "Event.ts: True is a bool"),
        ({"name": "a", "ts": 1_700_000_000}, "milliseconds since 1970 (not seconds)"),
        ({"name": "a", "ts": 4_102_444_800_000}, "not between 1980 and 2100"),
        ({"name": "a", "ts": -1}, "not between 1980 and 2100"),
    ],
)
def test_bad_fields_are_named(fields, says):
    with pytest.raises(EventInvalidError) as caught:
        Event(**fields)
    assert says in str(caught.value)


def test_none_is_no_data():
    assert Event("a", data=cast("Any", None)).data == {}


def test_an_event_from_json():
    raw = {"name": "a", "data": None, "ts": None, "meta": 1, "user": {"id": 1}}
    assert Event.from_dict(raw) == Event("a", user={"id": 1})
    with pytest.raises(EventInvalidError, match=r"Event\.name: missing"):
        Event.from_dict({"data": {}})


def test_what_cant_be_stored_is_named_by_field():
    with pytest.raises(EventInvalidError, match=r'event "a": event\.data\.x\[1\]: nan is not'):
        encode_event(Event("a", {"x": [1, float("nan")]}))
    with pytest.raises(EventInvalidError, match=r"event\.user: the key 1 is a int"):
        encode_event(Event("a", user=cast("Any", {1: 1})))


@pytest.mark.parametrize("name", ["stepwell/x", "inngest/function.failed"])
def test_reserved_names_cant_be_sent(name):
    with pytest.raises(EventInvalidError, match="begins with a prefix kept for internal events"):
        check_sendable(Event(name))


def test_a_send_is_checked_whole():
    events = [Event("a", {"n": n}) for n in range(3)]
    assert [
        decode_event(data, INTERNAL).data["n"] for data in encode_events(events, DEFAULT_LIMITS)
    ] == [
        0,
        1,
        2,
    ]
    with pytest.raises(EventInvalidError, match="is a dict; write Event"):
        encode_events(cast("Any", [{"name": "a"}]), DEFAULT_LIMITS)
    changed = Event("a")
    changed.name = ""
    with pytest.raises(EventInvalidError, match="empty"):
        encode_events([changed], DEFAULT_LIMITS)


@pytest.mark.parametrize(
    ("limits", "setting", "seen"),
    [
        (Limits(events=2), "events", 3),
        (Limits(event=100), "event", 1_011),
        (Limits(send=2_000), "send", 3_033),
    ],
)
def test_over_a_limit_nothing_is_encoded(limits, setting, seen):
    events = [Event("a", {"x": "y" * 1_000})] * 3
    with pytest.raises(LimitExceededError) as caught:
        encode_events(events, limits)
    assert caught.value.setting == setting
    assert abs(caught.value.seen - seen) < 30
    assert f"Limits({setting}=...)" in str(caught.value)
