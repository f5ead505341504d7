"""The checks of `create_function`'s arguments, those of flow control aside (`flow_args.py`)."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from stepwell import _engine
from stepwell.durations import DAY, SECOND, Duration, parse_duration
from stepwell.errors import ConfigError, DurationError, ExpressionError
from stepwell.function import Function, Handler, is_async
from stepwell.limits import Limits
from stepwell.middleware import UninitializedMiddleware
from stepwell.serde.outputs import Serializer
from stepwell.triggers import Trigger, TriggerCron, TriggerEvent


class Where:
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

    def triggers(self, trigger: object, limits: Limits) -> tuple[Trigger, ...]:
        many = tuple(each(trigger))
        for one in many:
            if not isinstance(one, (TriggerEvent, TriggerCron)):
                advice = (
                    'write TriggerEvent(event="shop/order.created") or '
                    'TriggerCron(cron="30 9 * * 1-5"), or a list of them'
                )
                raise self.fail("trigger", one, advice)
        triggers = cast("tuple[Trigger, ...]", many)
        if len(triggers) > limits.triggers:
            raise self.fail(
                "trigger",
                len(triggers),
                f"at most {limits.triggers} of them; use a wildcard, or raise Limits(triggers=...)",
            )
        if len(set(triggers)) < len(triggers):
            raise self.fail("trigger", trigger, "a trigger is there twice; write each once")
        for one in triggers:
            if isinstance(one, TriggerEvent) and one.expression is not None:
                self.expression("trigger", one.expression)
        self.crons([one for one in triggers if isinstance(one, TriggerCron)], limits)
        return triggers

    def crons(self, crons: Sequence[TriggerCron], limits: Limits) -> None:
        seen: set[tuple[str, str]] = set()
        for one in crons:
            if len(one.cron) > limits.cron:
                raise ConfigError(
                    f"{self('trigger')}: TriggerCron(cron=): {len(one.cron)} characters, the most "
                    f"is {limits.cron}; write several TriggerCron instead"
                )
            try:
                _engine.check_cron(one.cron, one.timezone)
            except ConfigError as error:
                raise ConfigError(f"{self('trigger')}: {error}") from error
            if one.schedule in seen:
                advice = "this cron expression is there twice; write it once"
                raise self.fail("trigger", one.cron, advice)
            seen.add(one.schedule)

    def expression(
        self, argument: str, text: str, variables: tuple[str, ...] = ("event",), note: str = ""
    ) -> None:
        try:
            _engine.compile_expression(text, variables=variables)
        except ExpressionError as error:
            raise ExpressionError(
                f"{self(argument)}: {note}{error}", expression=text, position=error.position
            ) from error

    def middleware(self, middleware: object) -> tuple[UninitializedMiddleware, ...]:
        many = tuple(each(middleware))
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
        many = tuple(each(names))
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


def each(value: object) -> Iterable[object]:
    """One, several or none, as what can be gone through."""
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return cast("list[object]", value)
    return (value,)
