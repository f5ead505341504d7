"""limits/timeouts.py: what a run is asked to keep."""

import msgpack
import pytest

from stepwell_engine.limits.admission import Asked
from stepwell_engine.limits.timeouts import Timeouts
from stepwell_engine.triggers import RegisteredFunction


@pytest.mark.parametrize("found", [None, {}, {"start": None, "finish": None}, {"start": 0}])
def test_none(found):
    assert Timeouts.read({"timeouts": found}) is None


@pytest.mark.parametrize(
    ("found", "asked"),
    [
        ({"start": 5, "finish": None}, [5, 0]),
        ({"start": None, "finish": 7}, [0, 7]),
        ({"start": 5, "finish": 7}, [5, 7]),
    ],
)
def test_the_spans(found, asked):
    function = RegisteredFunction("a", "f", "1", 0, {"timeouts": found})
    ask = function.flow.admission(function, Asked(lambda: pytest.fail("read"), 1, 0))
    flow = msgpack.unpackb(ask.flow)
    start, finish = asked
    assert (flow["to"], ask.certain, ask.key) == (start, True, "")
    assert flow["f"] == ["tb", str(start), "tf", str(finish), "fx", "t"]
