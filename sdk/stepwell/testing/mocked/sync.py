"""The same steps for a sync handler: nothing ever waits, and branches run one after another."""

from collections.abc import Callable, Sequence
from typing import Any

from stepwell.events import Event
from stepwell.middleware import drive
from stepwell.runtime import Invoke, SignalWait, Wait
from stepwell.testing.mocked.steps import Steps


class SyncSteps:
    """`SyncStepRuntime`: the same steps; branches run one after another."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.app_id = steps.app_id

    def run(
        self, step_id: str, handler: Callable[..., Any], args: tuple[Any, ...], output_type: Any
    ) -> Any:
        """As in `Steps`."""
        return drive(self._steps.run(step_id, handler, args, output_type))

    def sleep(self, step_id: str, mode: str, ms: int) -> None:
        """As in `Steps`."""
        drive(self._steps.sleep(step_id, mode, ms))

    def wait(self, step_id: str, wait: Wait) -> Event | None:
        """As in `Steps`."""
        return drive(self._steps.wait(step_id, wait))

    def wait_signal(self, step_id: str, wait: SignalWait) -> Any:
        """As in `Steps`."""
        return drive(self._steps.wait_signal(step_id, wait))

    def send_event(self, step_id: str, events: Sequence[Event]) -> list[str]:
        """As in `Steps`."""
        return drive(self._steps.send_event(step_id, events))

    def send_signal(self, step_id: str, signal: str, data: Any, hold_ms: int) -> str | None:
        """As in `Steps`."""
        return drive(self._steps.send_signal(step_id, signal, data, hold_ms))

    def invoke(self, step_id: str, invoke: Invoke) -> Any:
        """As in `Steps`."""
        return drive(self._steps.invoke(step_id, invoke))

    def parallel(self, callables: Sequence[Callable[[], Any]], mode: str) -> tuple[Any, ...]:  # noqa: ARG002
        """All branches; the first error in order once all have ended."""
        results: list[Any] = []
        first: Exception | None = None
        for call in callables:
            try:
                results.append(call())
            except Exception as error:  # noqa: BLE001 - raised once the other branches have ended
                first = first or error
        if first is not None:
            raise first
        return tuple(results)

    def race(self, callables: Sequence[Callable[[], Any]]) -> Any:
        """The first branch, which nothing can overtake here."""
        return callables[0]()
