import functools
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field

from stepwell.errors import OutputUnserializableError, UnserializableError
from stepwell.runtime import UNSET
from stepwell.serde import pack, unpack
from stepwell.serde.outputs import PydanticSerializer, codec_for, declared_type, pack_output


class Color(Enum):
    RED = "red"


@dataclass
class Line:
    sku: str
    price: Decimal
    color: Color = Color.RED


@dataclass
class Order:
    id: int
    lines: list[Line] = field(default_factory=list)
    raw: bytes = b""


class Customer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(alias="fullName")
    since: datetime
    born: date | None = None

    @computed_field
    def upper(self) -> str:
        return self.name.upper()


LINE = Line("a", Decimal("1.10"))


def round_trip(value, typ):
    codec = codec_for(None, typ)
    assert codec is not None
    return codec.load(unpack(pack(codec.dump(value))))


@pytest.mark.parametrize(
    ("value", "typ"),
    [
        (LINE, Line),
        (Order(1, [LINE], b"ok"), Order),
        (Order(1, [LINE], b"\xff\xfe"), Order),
        ([LINE, LINE], list[Line]),
        ({"a": None, "b": LINE}, dict[str, Line | None]),
        (Customer(fullName="Ada", since=datetime(2030, 1, 1, tzinfo=UTC)), Customer),
        ((1, LINE), tuple[int, Line]),
        (Color.RED, Color),
        (frozenset({1, 2}), frozenset[int]),
        (datetime(2030, 1, 1), datetime),  # noqa: DTZ001  the type says how to read it back
    ],
)
def test_typed_values_come_back_equal(value, typ):
    back = round_trip(value, typ)
    assert back == value
    assert type(back) is type(value)


async def makes_line() -> Line:
    return LINE


def makes_lines(n: int) -> "list[Line]":
    return [LINE] * n


def makes_awaitable() -> Awaitable[Line]:
    return makes_line()


def makes_annotated() -> Annotated[Line, []]:
    return LINE


class Shop:
    def order(self) -> Order:
        return Order(1)


@pytest.mark.parametrize(
    ("handler", "typ"),
    [
        (makes_line, Line),
        (makes_lines, list[Line]),
        (functools.partial(makes_lines, 2), list[Line]),
        (makes_awaitable, Line),
        (makes_annotated, Annotated[Line, []]),
        (Shop().order, Order),
    ],
)
def test_the_annotation_is_read(handler, typ):
    assert declared_type(handler) == typ
    assert declared_type(handler) == typ


def plain() -> dict[str, int]:
    return {}


def nothing() -> None:
    return None


def unknown() -> "Nowhere":  # type: ignore[name-defined]  # noqa: F821
    return None


@pytest.mark.parametrize("handler", [None, len, lambda: 1, plain, nothing, unknown, Shop, print])
def test_plain_results_need_no_codec(handler):
    assert declared_type(handler) is UNSET
    assert codec_for(handler, UNSET) is None


def test_closures_of_one_place_are_told_apart_by_their_annotation():
    def make(kind):
        def inner():
            return None

        inner.__annotations__ = {"return": kind}
        return inner

    assert declared_type(make(Line)) is Line
    assert declared_type(make(Order)) is Order
    assert declared_type(make(Line)) is Line


def test_output_type_goes_before_the_annotation():
    codec = codec_for(makes_line, Order)
    assert codec is not None
    assert codec.typ is Order


def test_a_value_of_another_type_is_refused_by_name():
    codec = codec_for(None, Order)
    assert codec is not None
    with pytest.raises(UnserializableError, match="a dict does not fit the declared type Order"):
        codec.load({"id": "x"})


def test_a_serializer_of_ones_own():
    class Hex:
        def serialize(self, obj: object, typ: object) -> object:
            return f"{obj:x}"

        def deserialize(self, obj: object, typ: object) -> object:
            assert isinstance(obj, str)
            return int(obj, 16)

    codec = codec_for(None, int, Hex())
    assert codec is not None
    assert codec.dump(255) == "ff"
    assert codec.load("ff") == 255


def test_by_alias_or_by_name():
    stored = {"fullName": "Ada", "since": "2030-01-01T00:00:00Z"}
    customer = PydanticSerializer().deserialize(stored, Customer)
    assert isinstance(customer, Customer)
    assert customer.name == "Ada"


def test_an_output_that_cant_be_stored_names_the_step():
    with pytest.raises(OutputUnserializableError) as caught:
        pack_output({"a": [LINE]}, "charge")
    text = str(caught.value)
    assert text.startswith('"charge" returned unserializable data: output.a[0]: a Line can\'t be')
    assert "output_type=" in text
    assert caught.value.step_id == "charge"
