"""The public face: what `import stepwell` gives, and by which name it goes."""

import copy
import inspect
import pickle
from types import FunctionType, ModuleType
from typing import get_type_hints

import pytest
from pydantic import TypeAdapter

import stepwell

OURS = [
    name for name in stepwell.__all__ if isinstance(getattr(stepwell, name), type | FunctionType)
]


def test_all_is_what_is_visible() -> None:
    visible = [
        name
        for name, value in vars(stepwell).items()
        if not (name.startswith("_") or isinstance(value, ModuleType))
    ]
    assert sorted(stepwell.__all__, key=str.casefold) == sorted(visible, key=str.casefold)
    assert len(set(stepwell.__all__)) == len(stepwell.__all__)


@pytest.mark.parametrize("name", stepwell.__all__)
def test_everything_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(stepwell, name))


@pytest.mark.parametrize("name", OURS)
def test_a_name_is_said_as_it_is_imported(name: str) -> None:
    thing = getattr(stepwell, name)
    assert f"{thing.__module__}.{thing.__qualname__}" == f"stepwell.{name}"
    assert pickle.loads(pickle.dumps(thing)) is thing


@pytest.mark.parametrize("name", OURS)
def test_annotations_can_be_resolved(name: str) -> None:
    """A moved class resolves its forward references in `stepwell`: pydantic and dataclass tools read them."""
    thing = getattr(stepwell, name)
    get_type_hints(thing)
    for method in vars(thing).values() if isinstance(thing, type) else ():
        if isinstance(method, FunctionType) and not method.__name__.startswith("_"):
            get_type_hints(method)


@pytest.mark.parametrize(
    "value",
    [
        stepwell.Event(name="a/b", data={"n": 1}),
        stepwell.Checkpointing(buffered_steps=5),
        stepwell.Retries(attempts=3),
        stepwell.Limits(),
        stepwell.TriggerEvent(event="a/*"),
        stepwell.TriggerCron(cron="@daily", jitter="1m"),
        stepwell.Batch(max_size=2),
        stepwell.Cancel(event="a", match="data.id", timeout="1d"),
        stepwell.Concurrency(limit=5, key="event.data.user"),
        stepwell.Debounce(period="30s", collect=True),
        stepwell.Priority(run="120"),
        stepwell.RateLimit(limit=1, period="1h"),
        stepwell.Singleton(mode="skip"),
        stepwell.Throttle(limit=1, period="1m", burst=2),
        stepwell.Timeouts(finish="1h"),
        stepwell.RunStatus.FAILED,
        stepwell.reference_function(app_id="a", function_id="b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_travel(value: object) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value


def test_errors_travel() -> None:
    error = pickle.loads(pickle.dumps(stepwell.NonRetriableError("no stock")))
    assert type(error) is stepwell.NonRetriableError
    assert error.args == ("no stock",)
    assert error.code == stepwell.NonRetriableError.code


def test_pydantic_reads_an_event() -> None:
    adapter = TypeAdapter(stepwell.Event)
    assert adapter.validate_python({"name": "a/b", "data": {"n": 1}}).data == {"n": 1}
    assert adapter.validate_json(adapter.dump_json(stepwell.Event(name="a/b"))).name == "a/b"
