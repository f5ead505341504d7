"""Middleware around one entry. An entry without middleware has no `Hooks`, and pays nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepwell.errors import SendEventsError, StepError
from stepwell.events import Event
from stepwell.middleware import (
    MiddlewareStack,
    Opcode,
    SendEventsResult,
    StepMemo,
    StepMemos,
    TransformOutputResult,
    TransformOutputStepInfo,
)
from stepwell.serde.values import unpack
from stepwell_workers import memo

if TYPE_CHECKING:
    from stepwell.context import Context
    from stepwell.function import Function
    from stepwell_workers.memo import StepName


class Hooks:
    """The middleware stack of one entry and the recorded steps as it may have changed them."""

    def __init__(self, stack: MiddlewareStack, fields: dict[bytes, bytes]) -> None:
        self.stack = stack
        self.memos = StepMemos(dict(_memos(fields)))
        self.before = {key: (m.data, m.error) for key, m in self.memos.memos.items()}

    async def begin(self, ctx: "Context", function: "Function[Any]") -> None:
        """The start of an entry."""
        await self.stack.begin(ctx, function, self.memos)

    def recorded(self, name: "StepName", record: bytes | None) -> bytes | None:
        """A step's record, unless the middleware took it out."""
        if name.key in self.before and name.key not in self.memos.memos:
            return None
        return record

    def changed(self, name: "StepName") -> StepMemo | None:
        """What the middleware made of a step's record; None when it left it."""
        now = self.memos.memos.get(name.key)
        if now is None or (now.data, now.error) == self.before.get(name.key):
            return None
        return now

    async def before_step(self, step_id: str) -> None:
        """A step's callback is about to be called."""
        await self.stack.before_execution()
        await self.stack.run("before_step", TransformOutputStepInfo(step_id, Opcode.STEP_RUN, None))

    async def after_step(
        self, step_id: str, output: Any, error: Exception | None = None
    ) -> TransformOutputResult:
        """A step's callback returned or raised; the result as the middleware wants it."""
        result = TransformOutputResult(
            output, error, TransformOutputStepInfo(step_id, Opcode.STEP_RUN, None)
        )
        await self.stack.run("after_step", result)
        await self.stack.run("transform_output", result)
        return result

    async def finish(self, output: Any, error: Exception | None) -> TransformOutputResult:
        """The function returned or raised."""
        await self.stack.before_execution()
        return await self.stack.finish(TransformOutputResult(output, error))

    async def leave(self) -> None:
        """The entry ends before the function does: it is suspended, or handed over."""
        await self.stack.before_execution()
        await self.stack.run("after_execution")
        await self.stack.run("before_response")

    async def before_send(self, events: Sequence[Event]) -> list[Event]:
        """Events are about to be sent by a step."""
        await self.stack.before_execution()
        many = list(events)
        await self.stack.run("before_send_events", many)
        return many

    async def after_send(self, ids: list[str], error: BaseException | None = None) -> None:
        """Events were sent by a step, or not."""
        text = None if error is None else str(error) or SendEventsError.__name__
        await self.stack.run("after_send_events", SendEventsResult(text, ids))


def _memos(fields: dict[bytes, bytes]) -> list[tuple[str, StepMemo]]:
    found: list[tuple[str, StepMemo]] = []
    for field, record in fields.items():
        if field[:2] != b"s:":
            continue
        try:
            entry = StepMemo(data=memo.read(record, "", _plain))
        except StepError as error:
            entry = StepMemo(
                error={"name": error.name, "message": error.message, "stack": error.stack}
            )
        found.append((field[2:].decode(), entry))
    return found


def _plain(value: bytes) -> Any:
    """A result that came from outside: an event's blob begins with its id, everything else is a packed value."""
    try:
        return unpack(value)
    except ValueError:
        return memo.read_event(value)
