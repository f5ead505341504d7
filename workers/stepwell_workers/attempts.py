"""What a failed attempt means: another one, when, or none. Pure."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from stepwell.errors import RetryAfterError, StepwellError, error_payload
from stepwell.function import Function
from stepwell_workers.memo import attempts_made

Group = BaseExceptionGroup[BaseException]

# Frames of our own at the top of a user's traceback say nothing about the user's error.
_OURS = str(Path(__file__).parent)


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
    ours = 0
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        ours += 1
        trace = trace.tb_next
    return dict(error_payload(error, skip_frames=ours if trace is not None else 0))


def _sole(error: BaseException) -> BaseException:
    """A task group wraps what its branches raise; a group of final errors is as final as its first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = list(_leaves(cast("Group", error)))
    if len(leaves) == 1 or all(final(leaf) for leaf in leaves):
        return leaves[0]
    return cast("Group", error)


def _leaves(group: Group) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(cast("Group", error))
        else:
            yield error
