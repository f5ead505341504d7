"""What a mocked run is given and gives back: stubs by step id, the result."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from stepwell.errors import (
    OutputUnserializableError,
    StepError,
    StepwellError,
    UnserializableError,
    error_payload,
    from_payload,
)
from stepwell.serde.outputs import Codec, pack_output
from stepwell.serde.values import unpack

T = TypeVar("T")

ID: Final = "0" * 26
"""The id of every event."""


class Status(enum.Enum):
    """How the function ended."""

    COMPLETED = "Completed"
    FAILED = "Failed"


class TimedOut:
    def __repr__(self) -> str:
        return "mocked.Timeout"


Timeout: Final = TimedOut()
"""As a stub: the wait, signal or invoke of that id times out."""


class UnstubbedStepError(StepwellError, retriable=False):
    """A step that only another function or an event can finish has no stub."""

    def __init__(self, step_id: str, op: str) -> None:
        super().__init__(
            f"step {step_id} is not stubbed: a {op} needs its result in step_stubs="
            f"{{{step_id!r}: ...}}, or mocked.Timeout"
        )
        self.step_id = step_id


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What became of the function: `output` when it completed, `error` when it failed."""

    status: Status
    output: T | None = None
    error: Exception | None = None


def is_final(error: Exception) -> bool:
    """Whether another attempt is out of question."""
    return isinstance(error, StepwellError) and not error.retriable


def stubbed(stub: object) -> Any:
    if isinstance(stub, Exception):
        raise stub if isinstance(stub, StepError) else from_payload(error_payload(stub))
    return None if stub is Timeout else stub


def raiser(payload: Mapping[str, object], step_id: str) -> Callable[[], Any]:
    def fail() -> Any:
        raise from_payload(payload, step_id=step_id)

    return fail


def round_trip(value: Any, codec: Codec | None, step_id: str | None) -> Any:
    """What replay would return: it must be the same here as in production."""
    try:
        plain = value if codec is None else codec.dump(value)
    except UnserializableError as error:
        raise OutputUnserializableError(error.path, error.reason, step_id) from error
    plain = unpack(pack_output(plain, step_id))
    return plain if codec is None else codec.load(plain)
