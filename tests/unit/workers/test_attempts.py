"""What a failed attempt means."""

import random
from typing import Any

import pytest

from stepwell import Backoff, Client, NonRetriableError, Retries, RetryAfterError, StepError
from stepwell.errors import LimitExceededError, UnserializableError
from stepwell_workers import attempts, memo

NOW = 1_800_000_000_000


def function(retries: Any) -> Any:
    """A function with these retries."""
    client = Client(app_id="shop")

    @client.create_function(fn_id="f", retries=retries)
    async def f(ctx: Any) -> None: ...

    return f


def judge(error: BaseException, *, failed: int = 0, retries: Any = 2) -> attempts.Verdict:
    """The verdict on an error after `failed` attempts."""
    blob = b"%02d" % failed if failed else None
    return attempts.judge(error, blob, function(retries), random.Random(1), NOW)


def test_attempts_are_used_up_one_by_one() -> None:
    retries = Retries(3, Backoff(["1s", "5s"], jitter=0))
    delays = [judge(ValueError("x"), failed=n, retries=retries).delay_ms for n in range(3)]
    assert delays == [1_000, 5_000, None]


@pytest.mark.parametrize(
    "error",
    [
        NonRetriableError("no"),
        StepError("failed", "ValueError"),
        UnserializableError("output", "a set of functions"),
        LimitExceededError("steps", 1_000, 1_001, "the steps"),
    ],
)
def test_final_errors_get_no_other_attempt(error: Exception) -> None:
    assert judge(error).delay_ms is None


def test_retry_after_sets_the_time_and_still_uses_an_attempt() -> None:
    assert judge(RetryAfterError("busy", "30s")).delay_ms == 30_000
    assert judge(RetryAfterError("busy", 1)).delay_ms == 1_000
    assert judge(RetryAfterError("busy", "30s"), failed=2).delay_ms is None


def test_a_group_of_final_errors_is_final_and_a_mixed_one_is_not() -> None:
    final = ExceptionGroup("branches", [NonRetriableError("a"), StepError("b")])
    mixed = ExceptionGroup("branches", [NonRetriableError("a"), ValueError("b")])
    assert judge(final).delay_ms is None
    assert judge(final).payload["message"] == "a"
    assert judge(mixed).delay_ms is not None
    assert (
        judge(ExceptionGroup("one", [ExceptionGroup("in", [NonRetriableError("x")])])).delay_ms
        is None
    )


def test_the_attempts_blob_counts_and_keeps_a_bounded_stack() -> None:
    error = {"code": "unknown", "message": "boom", "name": "ValueError", "stack": "x" * 10_000}
    blob = memo.add_attempt(None, "w:1", NOW, NOW + 5, error)
    blob = memo.add_attempt(blob, "w:2", NOW + 9, NOW + 10, error)
    assert memo.attempts_made(blob) == 2
    assert len(blob) < 2 * (memo.STACK_LIMIT + 200)
    assert memo.attempts_made(None) == 0


def test_quiet_errors_stay_quiet() -> None:
    assert judge(NonRetriableError("x", quiet=True)).quiet
    assert not judge(ValueError("x")).quiet
