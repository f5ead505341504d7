"""Middleware: code around every entry, step and send of a client's functions.

A fresh instance serves each entry: the client's in order, then the function's. Hooks that begin
something run in that order, hooks that end something in the reverse.
"""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias, TypeVar

from stepwell.errors import ConfigError
from stepwell.events import Event, SendEventsResult

T = TypeVar("T")

__all__ = [
    "Hook",
    "Middleware",
    "MiddlewareStack",
    "MiddlewareSync",
    "Opcode",
    "SendEventsResult",
    "StepMemo",
    "StepMemos",
    "TransformOutputResult",
    "TransformOutputStepInfo",
    "UninitializedMiddleware",
    "drive",
]


class Opcode(StrEnum):
    """What kind of step a hook is told of."""

    AI_GATEWAY = "AIGateway"
    INVOKE = "InvokeFunction"
    PLANNED = "StepPlanned"
    SLEEP = "Sleep"
    STEP_RUN = "StepRun"
    STEP_ERROR = "StepError"
    WAIT_FOR_EVENT = "WaitForEvent"
    STEP_FAILED = "StepFailed"


@dataclass(slots=True)
class TransformOutputStepInfo:
    """Which step a result is of: the user's id, its kind and its options. For reading."""

    id: str
    op: Opcode
    opts: dict[str, Any] | None = None


@dataclass(slots=True)
class TransformOutputResult:
    """A result on its way out: set `output` or `error`; `step` is None for the function's."""

    output: Any = None
    error: Exception | None = None
    step: TransformOutputStepInfo | None = None

    def has_output(self) -> bool:
        """Whether there is an output, rather than an error or nothing."""
        return self.error is None and self.output is not None


@dataclass(slots=True)
class StepMemo:
    """The recorded result of a step. Set `data` or `error` to change what the replay sees."""

    data: Any = None
    error: Any = None


@dataclass(slots=True)
class StepMemos:
    """The recorded steps of a run, by the hash of their ids."""

    memos: dict[str, StepMemo] = field(default_factory=dict[str, StepMemo])

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.memos)

    def values(self) -> Iterator[StepMemo]:
        """All of them."""
        return iter(self.memos.values())

    def pop(self, hashed_id: str) -> StepMemo | None:
        """Take one out."""
        return self.memos.pop(hashed_id, None)


class Middleware:
    """Asynchronous hooks; override those you need. For async functions.

    >>> class Timing(Middleware):
    ...     async def before_step(self, step):
    ...         self.started = monotonic()
    """

    def __init__(self, client: Any, raw_request: object = None) -> None:
        self.client = client
        self.raw_request = raw_request

    async def transform_input(self, ctx: Any, function: Any, steps: StepMemos) -> None:
        """Before anything else in an entry: may change `ctx` and the recorded steps."""

    async def before_execution(self) -> None:
        """Once an entry, when nothing is left to replay."""

    async def before_step(self, step: TransformOutputStepInfo) -> None:
        """Before a step's callback is run (not when it is replayed)."""

    async def after_step(self, result: TransformOutputResult) -> None:
        """After a step's callback, in reverse order; before `transform_output`."""

    async def before_send_events(self, events: list[Event]) -> None:
        """Before events are sent: may change the list and the events."""

    async def after_send_events(self, result: SendEventsResult) -> None:
        """After events were sent, in reverse order, also when that failed."""

    async def after_execution(self) -> None:
        """After user code, in reverse order; not when the function raised."""

    async def transform_output(self, result: TransformOutputResult) -> None:
        """For each result of a step or of the function, in reverse order: may change it."""

    async def before_response(self) -> None:
        """Last in an entry."""


class MiddlewareSync:
    """The hooks of `Middleware`, synchronous; for any function. They must not block for long."""

    def __init__(self, client: Any, raw_request: object = None) -> None:
        self.client = client
        self.raw_request = raw_request

    def transform_input(self, ctx: Any, function: Any, steps: StepMemos) -> None:
        """As in `Middleware`."""

    def before_execution(self) -> None:
        """As in `Middleware`."""

    def before_step(self, step: TransformOutputStepInfo) -> None:
        """As in `Middleware`."""

    def after_step(self, result: TransformOutputResult) -> None:
        """As in `Middleware`."""

    def before_send_events(self, events: list[Event]) -> None:
        """As in `Middleware`."""

    def after_send_events(self, result: SendEventsResult) -> None:
        """As in `Middleware`."""

    def after_execution(self) -> None:
        """As in `Middleware`."""

    def transform_output(self, result: TransformOutputResult) -> None:
        """As in `Middleware`."""

    def before_response(self) -> None:
        """As in `Middleware`."""


UninitializedMiddleware: TypeAlias = Callable[[Any, Any], Middleware | MiddlewareSync]
"""A middleware class, or any function of `(client, raw_request)` that returns an instance."""

Hook: TypeAlias = Literal[
    "transform_input",
    "before_execution",
    "before_step",
    "after_step",
    "before_send_events",
    "after_send_events",
    "after_execution",
    "transform_output",
    "before_response",
]

_REVERSED: Final = frozenset(
    {"after_step", "after_send_events", "after_execution", "transform_output"}
)


class MiddlewareStack:
    """The middleware of one entry, or of one send. There is none when there is no middleware."""

    __slots__ = ("_began", "_members")

    def __init__(self, members: Sequence[Middleware | MiddlewareSync]) -> None:
        self._members = tuple(members)
        self._began = False

    @classmethod
    def build(
        cls,
        client: Any,
        factories: Sequence[UninitializedMiddleware],
        *,
        is_async: bool,
        where: str,
        raw_request: object = None,
    ) -> "MiddlewareStack | None":
        """Fresh instances of all `factories`; None when there are none.

        `where` names the function or call in errors. Raises `ConfigError` for what is not a
        middleware, and for an async one where nothing can await it.
        """
        if not factories:
            return None
        members = [factory(client, raw_request) for factory in factories]
        for member in members:
            _check(member, is_async, where)
        return cls(members)

    def has(self, hook: Hook) -> bool:
        """Whether any member overrides the hook: if not, its arguments need not be made."""
        return any(True for _ in self._bound(hook))

    async def run(self, hook: Hook, *args: Any) -> None:
        """Call a hook of every member, in the order documented for it."""
        for call in self._bound(hook):
            result = call(*args)
            if result is not None:
                await result

    async def begin(self, ctx: Any, function: Any, steps: StepMemos) -> None:
        """The start of an entry; also `before_execution` when there is nothing to replay."""
        await self.run("transform_input", ctx, function, steps)
        if steps.size == 0:
            await self.before_execution()

    async def before_execution(self) -> None:
        """Call the hook the first time only: at the moment the last record was replayed."""
        if not self._began:
            self._began = True
            await self.run("before_execution")

    async def finish(self, result: TransformOutputResult) -> TransformOutputResult:
        """The end of an entry with the function's result, which is returned as it was changed."""
        if result.error is None:
            await self.run("after_execution")
        await self.run("transform_output", result)
        await self.run("before_response")
        return result

    def _bound(self, hook: Hook) -> Iterator[Callable[..., Any]]:
        members = reversed(self._members) if hook in _REVERSED else self._members
        for member in members:
            base = Middleware if isinstance(member, Middleware) else MiddlewareSync
            if getattr(type(member), hook) is not getattr(base, hook):
                yield getattr(member, hook)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to its end a coroutine that never waits, such as a stack's of synchronous middleware.

    Raises `ConfigError` when it does wait.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise ConfigError("encountered async middleware in non-async context; use MiddlewareSync")


def _check(member: object, is_async: bool, where: str) -> None:
    if isinstance(member, Middleware):
        if not is_async:
            kind = type(member).__name__
            raise ConfigError(
                f"{where}: encountered async middleware in non-async context: {kind} is a "
                "Middleware; write it as a MiddlewareSync"
            )
    elif not isinstance(member, MiddlewareSync):
        raise ConfigError(
            f"{where}: middleware= made {member!r}, neither a Middleware nor a MiddlewareSync; "
            "pass the class, or a function of (client, raw_request) that returns an instance"
        )
