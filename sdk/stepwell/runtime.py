"""What a step call asks of whoever runs the function: a worker, or `stepwell.testing.mocked`."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from stepwell.events import Event


class _Unset:
    """The type of `UNSET`: an argument that was not given."""

    def __repr__(self) -> str:
        return "UNSET"

    def __reduce__(self) -> str:
        # There is one, which code compares with `is`: a copy must be it.
        return "UNSET"


UNSET: Any = _Unset()


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait for an event, validated: its name, expression (CEL) and timeout in ms."""

    event: str
    expression: str | None
    timeout_ms: int
    lookback: bool = False


@dataclass(frozen=True, slots=True)
class SignalWait:
    """A wait for a signal, validated."""

    signal: str
    timeout_ms: int
    replace: bool


@dataclass(frozen=True, slots=True)
class Invoke:
    """A call of another function, validated."""

    app_id: str
    fn_id: str
    data: dict[str, Any]
    timeout_ms: int
    v: str | None
    output_type: Any
    cancel_child: bool


class StepRuntime(Protocol):
    """The asynchronous runtime behind `Context.step` and `Context.group`."""

    def run(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], output_type: Any
    ) -> Coroutine[Any, Any, Any]:
        """Run a callback as a step."""
        ...

    def sleep(self, step_id: str, mode: str, ms: int) -> Coroutine[Any, Any, None]:
        """Sleep for (mode d) or until (mode u) `ms`."""
        ...

    def wait(self, step_id: str, wait: Wait) -> Coroutine[Any, Any, "Event | None"]:
        """Wait for an event."""
        ...

    def wait_signal(self, step_id: str, wait: SignalWait) -> Coroutine[Any, Any, Any]:
        """Wait for a signal; the result is its data, or None on timeout."""
        ...

    def send_event(self, step_id: str, events: "Sequence[Event]") -> Coroutine[Any, Any, list[str]]:
        """Send events as a step."""
        ...

    def send_signal(
        self, step_id: str, signal: str, data: Any, hold_ms: int
    ) -> Coroutine[Any, Any, str | None]:
        """Send a signal as a step."""
        ...

    def invoke(self, step_id: str, invoke: Invoke) -> Coroutine[Any, Any, Any]:
        """Call another function and wait for its result."""
        ...

    def parallel(
        self, callables: Sequence[Callable[[], Any]], mode: str
    ) -> Coroutine[Any, Any, tuple[Any, ...]]:
        """Run branches concurrently; all results in order."""
        ...

    def race(self, callables: Sequence[Callable[[], Any]]) -> Coroutine[Any, Any, Any]:
        """Run branches concurrently; the first result, the others are cancelled."""
        ...

    @property
    def app_id(self) -> str:
        """The app of the running function."""
        ...


class SyncStepRuntime(Protocol):
    """The blocking runtime behind `ContextSync`: the same calls, made from the handler's thread."""

    def run(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], output_type: Any
    ) -> Any:
        """Run a callback as a step."""
        ...

    def sleep(self, step_id: str, mode: str, ms: int) -> None:
        """Sleep for (mode d) or until (mode u) `ms`."""
        ...

    def wait(self, step_id: str, wait: Wait) -> "Event | None":
        """Wait for an event."""
        ...

    def wait_signal(self, step_id: str, wait: SignalWait) -> Any:
        """Wait for a signal."""
        ...

    def send_event(self, step_id: str, events: "Sequence[Event]") -> list[str]:
        """Send events as a step."""
        ...

    def send_signal(self, step_id: str, signal: str, data: Any, hold_ms: int) -> str | None:
        """Send a signal as a step."""
        ...

    def invoke(self, step_id: str, invoke: Invoke) -> Any:
        """Call another function and wait for its result."""
        ...

    def parallel(self, callables: Sequence[Callable[[], Any]], mode: str) -> tuple[Any, ...]:
        """Run branches concurrently; all results in order."""
        ...

    def race(self, callables: Sequence[Callable[[], Any]]) -> Any:
        """Run branches concurrently; the first result."""
        ...

    @property
    def app_id(self) -> str:
        """The app of the running function."""
        ...


Until = datetime | str | int
