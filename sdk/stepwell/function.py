"""Functions: what `create_function` makes of a handler, and its form in the registry."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar, overload

from stepwell.checkpointing import Checkpointing
from stepwell.errors import ConfigError
from stepwell.flow.control import FlowControl
from stepwell.middleware import MiddlewareStack, UninitializedMiddleware
from stepwell.retries import Retries
from stepwell.runtime import UNSET
from stepwell.serde.outputs import Codec, Serializer, codec_for, declared_type
from stepwell.triggers import Trigger

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

FAILURE_SUFFIX: Final = "-failure"
FAILED_EVENT: Final = "inngest/function.failed"

Handler = Callable[[Any], Any]


class Owner(Protocol):
    """What a function needs of its client."""

    @property
    def app_id(self) -> str: ...

    @property
    def app_version(self) -> str | None: ...

    @property
    def middleware(self) -> Sequence[UninitializedMiddleware]: ...

    @property
    def checkpointing(self) -> Checkpointing | None: ...

    @property
    def serializer(self) -> Serializer | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionOptions:
    """The options of a function, validated. `stepwell.definition.create_function` makes them."""

    fn_id: str
    name: str
    triggers: tuple[Trigger, ...]
    retries: Retries
    middleware: tuple[UninitializedMiddleware, ...]
    output_type: Any
    checkpointing: Checkpointing | None
    distribute: bool
    max_crashes: int
    step_timeout_ms: int
    lookback: tuple[str, ...]
    serializer: Serializer | None
    flow: FlowControl = field(default_factory=FlowControl)


class Function(Generic[T_co]):
    """A durable function: a handler with its options, as `client.create_function` returns it.

    Its triggers, `client.invoke` and `step.invoke` start it; `handler` is what was decorated. `id`
    is `app-fn`, as events and logs name it.
    """

    __slots__ = (
        "client",
        "distribute",
        "handler",
        "id",
        "is_handler_async",
        "on_failure",
        "options",
        "result_type",
    )

    def __init__(
        self,
        client: Owner,
        options: FunctionOptions,
        handler: Handler,
        on_failure: "Function[Any] | None" = None,
    ) -> None:
        self.id = f"{client.app_id}-{options.fn_id}"
        self.client = client
        self.options = options
        self.handler = handler
        self.on_failure = on_failure
        self.is_handler_async = is_async(handler)
        # Parallel branches are queue items of their own: asked for, or so that each is counted.
        self.distribute = options.distribute or options.flow.counts_steps
        given = options.output_type
        self.result_type: Any = declared_type(handler) if given is UNSET else given

    def __repr__(self) -> str:
        return f"<Function {self.id!r}>"

    @property
    def app_id(self) -> str:
        """The app's id."""
        return self.client.app_id

    @property
    def fn_id(self) -> str:
        """The id within the app."""
        return self.options.fn_id

    @property
    def local_id(self) -> str:
        """The id within the app, by its name in the `inngest` package."""
        return self.options.fn_id

    @property
    def name(self) -> str:
        """The name to show to people; the id unless given."""
        return self.options.name

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """What starts it; empty: only `invoke`."""
        return self.options.triggers

    @property
    def retries(self) -> Retries:
        """How each step and the body are tried."""
        return self.options.retries

    @property
    def output_type(self) -> Any:
        """As given; UNSET when it wasn't. `result_type` also knows the annotation."""
        return self.options.output_type

    @property
    def checkpointing(self) -> Checkpointing:
        """The function's, else the client's, else the default."""
        return self.options.checkpointing or self.client.checkpointing or _CHECKPOINTING

    @property
    def flow(self) -> FlowControl:
        """When its runs may be made, may start, and are stopped."""
        return self.options.flow

    @property
    def max_crashes(self) -> int:
        """Crash deliveries after which a run fails."""
        return self.options.max_crashes

    @property
    def step_timeout_ms(self) -> int:
        """How long one step may run."""
        return self.options.step_timeout_ms

    @property
    def on_failure_fn_id(self) -> str | None:
        """The id of the function that runs when this one failed, if there is one."""
        return None if self.on_failure is None else self.on_failure.id

    @property
    def is_on_failure_handler_async(self) -> bool | None:
        """Whether that one is async; None when there is none."""
        return None if self.on_failure is None else self.on_failure.is_handler_async

    @property
    def codec(self) -> Codec | None:
        """How its result is stored; None when as it is."""
        if self.result_type is UNSET:
            return None
        serializer = self.options.serializer or self.client.serializer
        return codec_for(None, self.result_type, serializer)

    def get_id(self) -> str:
        """As `id`."""
        return self.id

    def client_middleware(self) -> MiddlewareStack | None:
        """A fresh stack for one entry: the client's, then the function's; None if there is none."""
        if not (self.client.middleware or self.options.middleware):
            return None
        factories = (*self.client.middleware, *self.options.middleware)
        return MiddlewareStack.build(
            self.client, factories, is_async=self.is_handler_async, where=f"function {self.fn_id!r}"
        )

    def config(self) -> dict[str, Any]:
        """Plain values for the registry."""
        checkpointing = self.checkpointing
        return {
            "app_id": self.app_id,
            "fn_id": self.fn_id,
            "name": self.name,
            "app_version": self.client.app_version,
            "triggers": [trigger.config() for trigger in self.triggers],
            "retries": self.retries.config(),
            "max_crashes": self.max_crashes,
            "step_timeout_ms": self.step_timeout_ms,
            "distribute": self.distribute,
            "lookback": list(self.options.lookback),
            "checkpointing": {
                "buffered_steps": checkpointing.buffered_steps,
                "max_interval_ms": checkpointing.max_interval_ms,
                "max_runtime_ms": checkpointing.max_runtime_ms,
            },
            "is_async": self.is_handler_async,
            "on_failure": None if self.on_failure is None else self.on_failure.fn_id,
            **self.flow.config(),
        }


_CHECKPOINTING: Final = Checkpointing()


@dataclass(frozen=True, slots=True)
class FunctionReference:
    """A function of any app, by its ids, for `step.invoke` where its code is not at hand."""

    app_id: str
    function_id: str
    output_type: Any = UNSET


def reference_function(
    *, app_id: str, function_id: str, output_type: Any = UNSET
) -> FunctionReference:
    """Name a function of another app, for `step.invoke`. Raises `ConfigError` for a wrong id.

    >>> reference_function(app_id="billing", function_id="make-invoice").app_id
    'billing'
    """
    check_id(app_id, "reference_function(app_id=)")
    check_id(function_id, "reference_function(function_id=)")
    return FunctionReference(app_id, function_id, output_type)


def check_id(value: object, argument: str) -> str:
    """A string of 1 to 255 characters. Raises `ConfigError` naming `argument`."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f'{argument}: {value!r} is not an id; write one such as "fulfil-order"')
    if len(value) > 255:
        raise ConfigError(f"{argument}: {len(value)} characters, the most is 255")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{argument}: {value!r} is not Unicode text") from None
    return value


def is_async(handler: Handler) -> bool:
    """Whether a handler is `async def`: a function, a partial of one, or an object's `__call__`."""
    call: Any = getattr(type(handler), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


class Decorator(Protocol):
    """What `create_function` returns: it makes a `Function` of a handler."""

    @overload
    def __call__(self, handler: Callable[[Any], Awaitable[T]], /) -> Function[T]: ...
    @overload
    def __call__(self, handler: Callable[[Any], T], /) -> Function[T]: ...
