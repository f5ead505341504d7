"""Slots and the table of their owners."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from stepwell_engine.store.cluster import SlotTable, by_slot, slot_of


@given(st.text())
def test_slots_agree_with_redis_py(key: str) -> None:
    assert slot_of(key) == key_slot(key.encode())


@pytest.mark.parametrize("key", ["{}a", "a{", "a}{b", "{a}{b}", "{{a}}", "{ns:0}:runs"])
def test_hash_tags(key: str) -> None:
    assert slot_of(key) == key_slot(key.encode())


def test_groups_keep_order() -> None:
    assert by_slot(["{a}1", "{b}1", "{a}2"]) == [["{a}1", "{a}2"], ["{b}1"]]
    assert by_slot([]) == []


def table() -> SlotTable[str]:
    reply = [
        [0, 5460, [b"10.0.0.1", 7000, b"id", []], [b"10.0.0.9", 7000, b"replica"]],
        [5461, 10922, [b"", 7001, b"id"]],
        [10923, 16000, [None, 7002, b"id"]],
    ]
    return SlotTable.parse(reply, "asked", lambda host, port: f"{host}:{port}")


def test_parse() -> None:
    slots = table()
    assert slots.masters == ("10.0.0.1:7000", "asked:7001", "asked:7002")
    owners = [slots.owner(s) for s in (0, 5460, 5461, 10922, 10923, 16000, 16001)]
    assert owners == [
        *["10.0.0.1:7000"] * 2,
        *["asked:7001"] * 2,
        *["asked:7002"] * 2,
        None,
    ]


def test_moved() -> None:
    slots = table()
    slots.moved(7, "new:7003")
    assert (slots.owner(6), slots.owner(7)) == ("10.0.0.1:7000", "new:7003")
    assert slots.masters[-1] == "new:7003"
