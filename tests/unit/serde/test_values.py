import json
import math
from collections import OrderedDict, defaultdict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import NamedTuple
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import UnserializableError
from stepwell.serde import pack, to_json, unpack

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.binary(max_size=10)
    | st.datetimes(timezones=st.timezones())
    | st.dates()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
)
VALUES = st.recursive(
    HASHABLE | st.sets(HASHABLE | st.tuples(HASHABLE, st.frozensets(HASHABLE)), max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_stored_comes_back_equal(value):
    first = unpack(pack(value))
    assert unpack(pack(first)) == first
    if not _has_datetime(
        value
    ):  # zoned times in a repeated hour are equal to nothing but themselves
        assert first == value


@given(st.datetimes(timezones=st.timezones()))
def test_a_datetime_keeps_its_instant_and_offset(moment):
    back = unpack(pack(moment))
    assert back.isoformat() == moment.isoformat()
    assert back.utcoffset() == moment.utcoffset()


def _has_datetime(value):
    if isinstance(value, dict):
        return any(map(_has_datetime, value.values()))
    if isinstance(value, list | set | tuple | frozenset):
        return any(map(_has_datetime, value))
    return isinstance(value, datetime)


@given(st.sets(st.integers() | TEXT, max_size=20).filter(lambda s: all(_fits(x) for x in s)))
def test_equal_sets_have_equal_bytes(members):
    assert pack(members) == pack(frozenset(reversed(list(members))))


def _fits(value):
    return isinstance(value, str) or -(2**63) <= value < 2**64


class Color(IntEnum):
    RED = 1


class Kind(StrEnum):
    BIG = "big"


class Plain(Enum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Color.RED, 1),
        (Kind.BIG, "big"),
        ({Kind.BIG: 1}, {"big": 1}),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        (frozenset({1}), {1}),
        (True, True),
        (Decimal("1.10"), Decimal("1.10")),
        (Decimal("-0"), Decimal("-0")),
    ],
)
def test_near_kin_become_plain(value, stored):
    back = unpack(pack(value))
    assert back == stored
    assert type(back) is type(stored)
    assert str(back) == str(stored)


NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        (NAN, "output", "nan is not a finite number"),
        ({"items": [0, 1, {"price": math.inf}]}, "output.items[2].price", "inf is not a finite"),
        ([(-math.inf,)], "output[0][0]", "-inf"),
        ({"a b": NAN}, "output['a b']", "nan"),
        ({"n": 2**64}, "output.n", "beyond 64 bits; store it as a string"),
        ({"n": -(2**63) - 1}, "output.n", "beyond 64 bits"),
        ({1: 2}, "output", "the key 1 is a int; write '1'"),
        ({"a": [{None: 2}]}, "output.a[0]", "the key None is a NoneType"),
        ({"a": {b"k": 2}}, "output.a", "the key b'k' is a bytes"),
        ({"a": {(1, 2): 2}}, "output.a", "the key (1, 2) is a tuple"),
        ({"a": ({True: 1},)}, "output.a[0]", "the key True is a bool"),
        ({"at": datetime(2030, 1, 1)}, "output.at", "has no time zone"),  # noqa: DTZ001
        ([Decimal("NaN")], "output[0]", "not a finite number"),
        ([Decimal("Infinity")], "output[0]", "not a finite number"),
        ({"o": object()}, "output.o", "an object can't be stored"),
        ([Plain.ONE], "output[0]", "a Plain can't be stored"),
        (timedelta(1), "output", "a timedelta can't be stored"),
        (["\ud800"], "output[0]", "half a surrogate pair"),
        ({"\ud800": 1}, "output", "half a surrogate pair"),
        ({NAN}, "output{nan}", "not a finite"),
        ({"e": msgpack.ExtType(9, b"")}, "output.e", "an ExtType can't be stored"),
        ([msgpack.Timestamp(1)], "output[0]", "a Timestamp can't be stored"),
    ],
)
def test_what_cant_be_stored_is_named_by_its_path(value, path, says):
    with pytest.raises(UnserializableError) as caught:
        pack(value, where="output")
    assert caught.value.path == path
    assert says in caught.value.reason
    assert str(caught.value) == f"{path}: {caught.value.reason}"


def test_a_value_in_itself_is_refused():
    value: list[object] = []
    value.append({"again": value})
    with pytest.raises(UnserializableError, match="nested deeper than 500, or in itself") as caught:
        pack(value)
    assert len(str(caught.value)) < 400


def test_deep_values_below_the_bound_are_stored():
    value: list[object] = []
    for _ in range(400):
        value = [value]
    assert unpack(pack(value)) == value


@given(st.binary(max_size=40) | st.integers(0, 2**64 - 1) | st.text(max_size=10))
def test_bytes_that_look_like_nan_are_stored(noise):
    value = [b"\xcb\x7f\xf8" + (noise if isinstance(noise, bytes) else b""), 0xCB7FF8, 1.5]
    assert unpack(pack(value)) == value


@given(VALUES)
def test_anything_stored_can_be_shown_as_json(value):
    json.dumps(to_json(value), allow_nan=False)


def test_json_shows_extension_types_as_text():
    value = {
        "at": datetime(2030, 1, 31, tzinfo=timezone(timedelta(hours=1))),
        "on": date(2030, 1, 31),
        "raw": b"\xff",
        "sum": Decimal("1.10"),
        "id": UUID(int=1),
        "tags": {"b", "a"},
        "pair": (1, None),
    }
    assert to_json(value) == {
        "at": "2030-01-31T00:00:00+01:00",
        "on": "2030-01-31",
        "raw": "/w==",
        "sum": "1.10",
        "id": "00000000-0000-0000-0000-000000000001",
        "tags": ["a", "b"],
        "pair": [1, None],
    }


def test_an_unknown_extension_is_an_error():
    with pytest.raises(ValueError, match="unknown extension type 77"):
        unpack(msgpack.packb(msgpack.ExtType(77, b"")))


def test_now_is_stored():
    now = datetime.now(UTC)
    assert unpack(pack(now)) == now
