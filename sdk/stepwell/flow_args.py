"""The checks of `create_function`'s flow-control arguments, and of what goes together."""

from collections.abc import Sequence
from typing import Any, Final, TypedDict, TypeVar, Unpack, cast

from stepwell.definition_args import Where, each
from stepwell.errors import ConfigError
from stepwell.flow import (
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    FlowControl,
    Priority,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
)
from stepwell.limits import Limits

T = TypeVar("T")


class FlowArgs(TypedDict, total=False):
    """The flow-control arguments of `create_function`, all optional."""

    batch_events: Batch | None
    cancel: Cancel | Sequence[Cancel] | None
    concurrency: int | Concurrency | Sequence[Concurrency] | None
    debounce: Debounce | None
    idempotency: str | None
    priority: Priority | None
    rate_limit: RateLimit | None
    singleton: Singleton | None
    throttle: Throttle | None
    timeouts: Timeouts | None


_BATCH: Final = 'Batch(max_size=100, timeout="5s")'
_CANCEL: Final = 'Cancel(event="shop/order.cancelled", match="data.order_id")'
_PRIORITY: Final = "Priority(run=\"event.data.plan == 'pro' ? 120 : 0\")"
_RATE_LIMIT: Final = 'RateLimit(limit=10, period="1h")'
_SINGLETON: Final = 'Singleton(mode="skip")'
_THROTTLE: Final = 'Throttle(limit=100, period="1m")'
_TIMEOUTS: Final = 'Timeouts(start="10m", finish="2h")'

# What of each option is CEL over `event`.
_EXPRESSIONS: Final[dict[type[Any], tuple[str, ...]]] = {
    Batch: ("key", "if_exp"),
    Concurrency: ("limit", "key", "weight"),
    Debounce: ("key",),
    Priority: ("run",),
    RateLimit: ("limit", "key"),
    Singleton: ("key",),
    Throttle: ("limit", "key"),
}
_NOT_WITH_BATCH: Final = ("cancel", "debounce", "priority", "singleton")


def flow_control(where: Where, limits: Limits, **given: Unpack[FlowArgs]) -> FlowControl:
    """The flow control that a function's arguments ask for. Raises `ConfigError`, and `TypeError` for unknown names."""
    unknown = given.keys() - FlowArgs.__optional_keys__
    if unknown:
        raise TypeError(f"create_function() got an unexpected keyword argument {min(unknown)!r}")
    check = _Check(where)
    flow = FlowControl(
        batch_events=check.one("batch_events", given.get("batch_events"), Batch, _BATCH),
        cancel=_cancels(check, given.get("cancel"), limits),
        concurrency=_concurrency(check, given.get("concurrency"), limits),
        debounce=check.one("debounce", given.get("debounce"), Debounce, 'Debounce(period="30s")'),
        idempotency=_idempotency(check, given.get("idempotency")),
        priority=check.one("priority", given.get("priority"), Priority, _PRIORITY),
        rate_limit=check.one("rate_limit", given.get("rate_limit"), RateLimit, _RATE_LIMIT),
        singleton=check.one("singleton", given.get("singleton"), Singleton, _SINGLETON),
        throttle=check.one("throttle", given.get("throttle"), Throttle, _THROTTLE),
        timeouts=check.one("timeouts", given.get("timeouts"), Timeouts, _TIMEOUTS),
    )
    if flow.batch_events is not None:
        for name in _NOT_WITH_BATCH:
            if getattr(flow, name):
                advice = f"it can't be combined with {name}=; leave one of the two out"
                raise where.fail("batch_events", flow.batch_events, advice)
    return flow


class _Check:
    """One option at a time: its class, and that its expressions compile."""

    __slots__ = ("where",)

    def __init__(self, where: Where) -> None:
        self.where = where

    def one(self, argument: str, value: T | None, kind: type[T], example: str) -> T | None:
        if value is None:
            return None
        if not isinstance(value, kind):
            raise self.where.fail(argument, value, f"write {example}, or leave it out")
        self.expressions(argument, value)
        return value

    def expressions(self, argument: str, option: object) -> None:
        for field in _EXPRESSIONS.get(type(option), ()):
            text = getattr(option, field)
            # A limit is mostly a number.
            if isinstance(text, str):
                note = f"{type(option).__name__}({field}=): "
                self.where.expression(argument, text, note=note)


def _cancels(check: _Check, value: object, limits: Limits) -> tuple[Cancel, ...]:
    where, many = check.where, tuple(each(value))
    for one in many:
        if not isinstance(one, Cancel):
            raise where.fail("cancel", one, f"write {_CANCEL}, or a list of them")
    cancels = cast("tuple[Cancel, ...]", many)
    if len(cancels) > limits.cancels:
        advice = f"at most {limits.cancels} of them; join conditions on one event with ||, or raise Limits(cancels=...)"
        raise where.fail("cancel", len(cancels), advice)
    if len(set(cancels)) < len(cancels):
        raise where.fail("cancel", value, "a Cancel is there twice; write each once")
    for one in cancels:
        if one.expression is not None:
            argument = "if_exp" if one.match is None else "match"
            where.expression(
                "cancel", one.expression, ("event", "async"), note=f"Cancel({argument}=): "
            )
    return cancels


def _concurrency(check: _Check, value: object, limits: Limits) -> tuple[Concurrency, ...]:
    where = check.where
    if type(value) is int:
        try:
            value = Concurrency(limit=value)
        except ConfigError as error:
            raise ConfigError(f"{where('concurrency')}: {error}") from error
    many = tuple(each(value))
    for one in many:
        if not isinstance(one, Concurrency):
            advice = "write a number, Concurrency(limit=10), or a list of them"
            raise where.fail("concurrency", one, advice)
    entries = cast("tuple[Concurrency, ...]", many)
    if len(entries) > limits.concurrency:
        advice = f"at most {limits.concurrency} entries; leave the widest out"
        raise where.fail("concurrency", len(entries), advice)
    if len({(one.key, one.scope, one.level) for one in entries}) < len(entries):
        advice = "two entries have the same key, scope and level; keep the one with the lower limit"
        raise where.fail("concurrency", value, advice)
    if sum(one.weight is not None for one in entries) > 1:
        advice = "a run has one weight; write weight= in one entry only"
        raise where.fail("concurrency", value, advice)
    for one in entries:
        check.expressions("concurrency", one)
    return entries


def _idempotency(check: _Check, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        advice = 'write an expression such as "event.data.order_id", or leave it out'
        raise check.where.fail("idempotency", value, advice)
    check.where.expression("idempotency", value)
    return value
