"""What `client.create_function` does: checks, then the function and its on_failure."""

from collections.abc import MutableMapping, Sequence
from typing import Any, Final, Unpack, cast

from stepwell.checkpointing import Checkpointing
from stepwell.definition_args import Where
from stepwell.durations import Duration
from stepwell.errors import ConfigError
from stepwell.flow_args import FlowArgs, flow_control
from stepwell.function import (
    FAILED_EVENT,
    FAILURE_SUFFIX,
    Decorator,
    Function,
    FunctionOptions,
    Handler,
    Owner,
    check_id,
)
from stepwell.limits import DEFAULT_LIMITS, Limits
from stepwell.middleware import UninitializedMiddleware
from stepwell.retries import Retries, parse_retries
from stepwell.runtime import UNSET
from stepwell.serde.outputs import Serializer
from stepwell.triggers import Trigger, TriggerEvent

STEP_TIMEOUT: Final = "2h"
MAX_CRASHES: Final = 3
_MOST_CRASHES: Final = 100


def create_function(
    client: Owner,
    functions: MutableMapping[str, Function[Any]],
    *,
    fn_id: str,
    trigger: Trigger | Sequence[Trigger] | None = None,
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
    **flow: Unpack[FlowArgs],
) -> Decorator:
    """A decorator that makes a handler a function of `client` and enters it in `functions`.

    `trigger` None: only `invoke` starts it. Raises `ConfigError` that names function and argument,
    for the options here and for the handlers when it decorates.
    """
    where = Where(fn_id)
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
        flow=flow_control(where, limits, **flow),
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
    functions: MutableMapping[str, Function[Any]], where: Where, made: Sequence[Function[Any]]
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
    """The function behind `on_failure=`: an ordinary one without flow control, started when the other has failed."""
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
