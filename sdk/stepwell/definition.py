"""What `client.create_function` does: checks, then the function and its on_failure."""

import inspect
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final, cast

from stepwell import _engine
from stepwell.checkpointing import Checkpointing
from stepwell.durations import DAY, SECOND, Duration, parse_duration
from stepwell.errors import ConfigError, DurationError, ExpressionError
from stepwell.function import (
    FAILED_EVENT,
    FAILURE_SUFFIX,
    Decorator,
    Function,
    FunctionOptions,
    Handler,
    Owner,
    check_id,
    is_async,
)
from stepwell.limits import DEFAULT_LIMITS, Limits
from stepwell.middleware import UninitializedMiddleware
from stepwell.retries import Retries, parse_retries
from stepwell.runtime import UNSET
from stepwell.serde.outputs import Serializer
from stepwell.triggers import TriggerEvent

STEP_TIMEOUT: Final = "2h"
MAX_CRASHES: Final = 3
_MOST_CRASHES: Final = 100


def create_function(
    client: Owner,
    functions: MutableMapping[str, Function[Any]],
    *,
    fn_id: str,
    trigger: TriggerEvent | Sequence[TriggerEvent] | None = None,
    name: str | None = None,
    retries: int | Retries | None = None,
    on_failure: Handler | None = None,
    middleware: Sequence[UninitializedMiddleware] | None = None,
    output_type: Any = UNSET,
    checkpointing: Checkpointing | None = None,
    distribute: bool = False,
    max_crashes: int = MAX_CRASHES,
    step_timeout: Duration = STEP_TIMEOUT,
    lookback: Sequence[str] = (),
    serializer: Serializer | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Decorator:
    """A decorator that makes a handler a function of `client` and enters it in `functions`.

    `trigger` None: only `invoke` starts it. Raises `ConfigError` that names function and argument,
    for the options here and for the handlers when it decorates.
    """
    where = _Where(fn_id)
    check_id(fn_id, "create_function(fn_id=)")
    options = FunctionOptions(
        fn_id=fn_id,
        name=where.name(name),
        triggers=where.triggers(trigger, limits),
        retries=parse_retries(retries, argument=where("retries")),
        middleware=where.middleware(middleware),
        output_type=output_type,
        checkpointing=where.instance("checkpointing", checkpointing, Checkpointing),
        distribute=where.flag("distribute", distribute),
        max_crashes=where.count("max_crashes", max_crashes, _MOST_CRASHES),
        step_timeout_ms=where.duration("step_timeout", step_timeout),
        lookback=where.lookback(lookback),
        serializer=where.serializer(serializer),
    )

    def decorate(handler: Handler, /) -> Function[Any]:
        where.handler(handler, "the handler")
        failure: Function[Any] | None = None
        if on_failure is not None:
            where.handler(on_failure, "on_failure=")
            where.same_kind(handler, on_failure)
            failure = Function(client, _failure_options(client, options), on_failure)
        function: Function[Any] = Function(client, options, handler, failure)
        _enter(functions, where, [function, *([failure] if failure else [])])
        return function

    return cast("Decorator", decorate)


def _enter(
    functions: MutableMapping[str, Function[Any]], where: "_Where", made: Sequence[Function[Any]]
) -> None:
    for function in made:
        if function.fn_id in functions:
            raise ConfigError(
                f"{where('fn_id')}: the app {function.app_id!r} has a function {function.fn_id!r} "
                "already; give each function an id of its own (on_failure= takes "
                f'"<fn_id>{FAILURE_SUFFIX}")'
            )
    functions.update((function.fn_id, function) for function in made)


def _failure_options(client: Owner, options: FunctionOptions) -> FunctionOptions:
    """The function behind `on_failure=`: an ordinary one, started when the other has failed."""
    # This very form is one that coordinators look up instead of evaluating it. The slug alone may be another app's function too:
    # with the local id it is this one's only.
    slug, fn_id = (_literal(text) for text in (f"{client.app_id}-{options.fn_id}", options.fn_id))
    failed = f"event.data.function_id == {slug} && event.data.fn_id == {fn_id}"
    return FunctionOptions(
        fn_id=options.fn_id + FAILURE_SUFFIX,
        name=f"{options.name} (failure)",
        triggers=(TriggerEvent(FAILED_EVENT, failed),),
        retries=Retries(attempts=2, backoff=options.retries.backoff),
        middleware=options.middleware,
        output_type=UNSET,
        checkpointing=options.checkpointing,
        distribute=False,
        max_crashes=options.max_crashes,
        step_timeout_ms=options.step_timeout_ms,
        lookback=(),
        serializer=options.serializer,
    )


def _literal(text: str) -> str:
    return "'" + text.translate({92: "\\\\", 39: "\\'", 10: "\\n", 13: "\\r"}) + "'"


class _Where:
    """Checks one `create_function`'s arguments; its errors name function and argument."""

    __slots__ = ("fn_id",)

    def __init__(self, fn_id: object) -> None:
        self.fn_id = fn_id

    def __call__(self, argument: str) -> str:
        return f"function {self.fn_id!r}: {argument}="

    def fail(self, argument: str, value: object, advice: str) -> ConfigError:
        return ConfigError(f"{self(argument)}: {value!r}; {advice}")

    def name(self, name: object) -> str:
        if name is None:
            return cast("str", self.fn_id)
        if not isinstance(name, str) or not name or len(name) > 255:
            raise self.fail("name", name, "write a string of 1 to 255 characters, or leave it out")
        return name

    def triggers(self, trigger: object, limits: Limits) -> tuple[TriggerEvent, ...]:
        many = tuple(_each(trigger))
        for one in many:
            if not isinstance(one, TriggerEvent):
                advice = 'write TriggerEvent(event="shop/order.created"), or a list of them'
                raise self.fail("trigger", one, advice)
        triggers = cast("tuple[TriggerEvent, ...]", many)
        if len(triggers) > limits.triggers:
            raise self.fail(
                "trigger",
                len(triggers),
                f"at most {limits.triggers} of them; use a wildcard, or raise Limits(triggers=...)",
            )
        if len(set(triggers)) < len(triggers):
            raise self.fail("trigger", trigger, "a trigger is there twice; write each once")
        for one in triggers:
            if one.expression is not None:
                self.expression("trigger", one.expression)
        return triggers

    def expression(self, argument: str, text: str) -> None:
        try:
            _engine.compile_expression(text)
        except ExpressionError as error:
            raise ExpressionError(
                f"{self(argument)}: {error}", expression=text, position=error.position
            ) from error

    def middleware(self, middleware: object) -> tuple[UninitializedMiddleware, ...]:
        many = tuple(_each(middleware))
        for one in many:
            if not callable(one):
                advice = "write a list of Middleware classes, or of functions that make one"
                raise self.fail("middleware", one, advice)
        return cast("tuple[UninitializedMiddleware, ...]", many)

    def instance(self, argument: str, value: object, kind: type[Any]) -> Any:
        if value is not None and not isinstance(value, kind):
            raise self.fail(argument, value, f"write {kind.__name__}(...), or leave it out")
        return value

    def flag(self, argument: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise self.fail(argument, value, "write True or False")
        return value

    def count(self, argument: str, value: object, most: int) -> int:
        if type(value) is not int or not 1 <= value <= most:
            raise self.fail(argument, value, f"write an int from 1 to {most}")
        return value

    def duration(self, argument: str, value: Duration) -> int:
        try:
            return parse_duration(value, argument=self(argument), minimum=SECOND, maximum=30 * DAY)
        except DurationError as error:
            raise ConfigError(str(error)) from error

    def lookback(self, names: object) -> tuple[str, ...]:
        many = tuple(_each(names))
        for one in many:
            if not isinstance(one, str) or not one or "*" in one:
                advice = 'write a list of exact event names, such as ["shop/order.shipped"]'
                raise self.fail("lookback", one, advice)
        return cast("tuple[str, ...]", many)

    def serializer(self, serializer: Any) -> Serializer | None:
        methods = ("serialize", "deserialize")
        if serializer is not None and not all(hasattr(serializer, name) for name in methods):
            advice = "write an object with serialize(obj, typ) and deserialize(obj, typ)"
            raise self.fail("serializer", serializer, advice)
        return cast("Serializer | None", serializer)

    def handler(self, handler: object, role: str) -> None:
        who = f"function {self.fn_id!r}: {role}"
        if isinstance(handler, Function):
            raise ConfigError(
                f"{who} {handler!r} is a function already; decorate the plain handler"
            )
        if not callable(handler):
            raise ConfigError(
                f"{who} {handler!r} is not callable; write `async def name(ctx): ...`"
            )
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise ConfigError(
                f"{who} {handler!r} is a generator; return a value instead of yielding"
            )
        if not _takes_context(handler):
            raise ConfigError(
                f"{who} {handler!r} must take one argument: `async def name(ctx): ...`"
            )

    def same_kind(self, handler: Handler, on_failure: Handler) -> None:
        wanted, found = is_async(handler), is_async(on_failure)
        if wanted == found:
            return
        kinds = {True: "an async", False: "a non-async"}
        raise ConfigError(
            f"{kinds[wanted]} function cannot have {kinds[found]} on_failure handler "
            f"(function {self.fn_id}); write `{'async def' if wanted else 'def'} name(ctx): ...`"
        )


def _takes_context(handler: Callable[..., Any]) -> bool:
    try:
        inspect.signature(handler).bind(None)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: only calling it tells
        return True
    return True


def _each(value: object) -> Iterable[object]:
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return cast("list[object]", value)
    return (value,)
