import random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.checkpointing import Checkpointing
from stepwell.errors import ConfigError, DurationError
from stepwell.limits import Limits
from stepwell.retries import Backoff, Retries, parse_retries

S, M, H = 1_000, 60_000, 3_600_000
TABLE = [15 * S, 30 * S, M, 2 * M, 5 * M, 10 * M, 20 * M, 40 * M, H, 2 * H]


def test_the_default_is_the_table_and_up_to_30_seconds():
    rng = random.Random(1)
    for attempt in range(21):
        base = TABLE[min(attempt, 9)]
        waits = [Retries().delay_ms(attempt, rng) for _ in range(50)]
        assert all(base <= wait <= base + 30 * S for wait in waits)
        assert len(set(waits)) > 40
    assert Retries().attempts == 5


@given(st.integers(0, 30), st.integers(0, 2**32))
def test_a_delay_is_a_function_of_attempt_and_randomness(attempt, seed):
    retries = Retries(3)
    first = retries.delay_ms(attempt, random.Random(seed))
    assert first == retries.delay_ms(attempt, random.Random(seed))


def test_shapes_of_backoff():
    rng = random.Random(0)
    assert [Backoff.constant("10s").delay_ms(n, rng) for n in range(3)] == [10 * S] * 3
    growing = Backoff.exponential("1s", factor=3, maximum="1m")
    assert [growing.delay_ms(n, rng) for n in range(6)] == [S, 3 * S, 9 * S, 27 * S, M, M]
    own = Backoff(["1s", 5_000], jitter=0)
    assert [own.delay_ms(n, rng) for n in range(3)] == [S, 5 * S, 5 * S]
    assert S <= Backoff.constant("1s", jitter="1s").delay_ms(0, rng) <= 2 * S


@pytest.mark.parametrize(
    ("value", "attempts"), [(None, 5), (0, 1), (4, 5), (20, 21), (Retries(7), 7)]
)
def test_a_number_is_of_retries_and_attempts_count_the_first(value, attempts):
    assert parse_retries(value, argument="retries").attempts == attempts


@pytest.mark.parametrize("value", [-1, 21, True, "4", 1.5])
def test_a_wrong_number_of_retries(value):
    with pytest.raises(ConfigError, match=r"^retries=: .*from 0 to 20"):
        parse_retries(value, argument="retries=")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Retries(0), r"Retries\(attempts=\): 0; write an int from 1"),
        (lambda: Retries(22), "the first attempt counts too"),
        (lambda: Retries(3, cast("Any", "10s")), r"Retries\(backoff=\): '10s'; write Backoff"),
        (lambda: Backoff([]), r"Backoff\(table=\): \[\] is not a list of waits"),
        (lambda: Backoff("15s"), r"Backoff\(table=\): '15s' is not a list"),
        (lambda: Backoff.exponential("1s", factor=0.5), "factor="),
        (lambda: Checkpointing(0), r"Checkpointing\(buffered_steps=\): 0"),
        (lambda: Checkpointing(True), "buffered_steps"),
        (lambda: Limits(steps=10_001), "Limits.steps: 10001 .* from 1 to 10,000"),
        (lambda: Limits(event=0), "Limits.event: 0"),
        (lambda: Limits(event=cast("Any", 1.5)), "Limits.event: 1.5"),
    ],
)
def test_wrong_settings_name_the_argument(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Backoff(["1s", "soon"]), r"Backoff\(table=\)\[1\]: 'soon'"),
        (lambda: Backoff(jitter=-1), r"Backoff\(jitter=\): -1 is negative"),
        (lambda: Backoff.constant("31d"), "too long; the most is 30d"),
        (lambda: Checkpointing(max_runtime="x"), r"Checkpointing\(max_runtime=\)"),
        (lambda: Checkpointing(max_interval=0), "too short"),
    ],
)
def test_wrong_durations_name_the_argument(make, says):
    with pytest.raises(DurationError, match=says):
        make()


def test_the_registry_has_all_of_it():
    retries = Retries(3, Backoff(["1s", "2s"], "5s"))
    back = Retries.from_config(retries.config())
    assert back.config() == retries.config()
    assert [back.delay_ms(n, random.Random(9)) for n in range(4)] == [
        retries.delay_ms(n, random.Random(9)) for n in range(4)
    ]


def test_checkpointing_in_milliseconds():
    made = Checkpointing(buffered_steps=20, max_interval="1s")
    assert (made.max_interval_ms, made.max_runtime_ms) == (1_000, 300_000)
    assert Checkpointing().max_interval_ms is None
    assert Checkpointing() == Checkpointing(1, None, "5m")
