"""What a failed attempt means: another one, when, or none. Pure."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stepwell.errors import RetryAfterError, StepwellError, error_payload
from stepwell.function import Function
from stepwell_workers.memo import attempts_made

@dataclass(frozen=True, slots=True)
class Verdict:
    """`delay_ms` until the next attempt, None when there is none; `payload` is the error as recorded."""

    delay_ms: int | None
    payload: dict[str, Any]
    quiet: bool


def judge(
    error: BaseException,
    blob: bytes | None,
    function: Function[Any],
    rng: random.Random,
    now_ms: int,
) -> Verdict:
    """Decide on a failed attempt of a step or body, `blob` being the attempts recorded before it."""
    quiet = bool(getattr(error, "quiet", False))
    made = attempts_made(blob) + 1
    cause = _sole(error)
    if final(cause) or made >= function.retries.attempts:
        return Verdict(None, payload(cause), quiet)
    if isinstance(cause, RetryAfterError):
        return Verdict(cause.delay_ms(now_ms), payload(error), quiet)
    return Verdict(function.retries.delay_ms(made - 1, rng), payload(error), quiet)


def final(error: BaseException) -> bool:
    """Whether another attempt is out of question, as the error's class says."""
    return isinstance(error, StepwellError) and not error.retriable


def payload(error: BaseException) -> dict[str, Any]:
    """The error as it is recorded: code, message, name, stack."""
    return error_payload(error)


def _sole(error: BaseException) -> BaseException:
    """A task group wraps what its branches raise; a group of final errors is as final as its first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = list(_leaves(error))
    if len(leaves) == 1 or all(final(leaf) for leaf in leaves):
        return leaves[0]
    return error


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
