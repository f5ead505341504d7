from datetime import UTC, datetime, timedelta

import pytest

import stepwell.errors as errors_module
from stepwell.errors import (
    ConfigError,
    DurationError,
    FunctionConfigInvalidError,
    LimitExceededError,
    NonRetriableError,
    OutputUnserializableError,
    RetryAfterError,
    SendEventsError,
    StepError,
    StepNestedError,
    StepwellError,
    SuspendSwallowedError,
    WorkerLostError,
    error_payload,
    from_payload,
)

CLASSES = [
    value
    for value in vars(errors_module).values()
    if isinstance(value, type) and issubclass(value, StepwellError)
]


def test_every_error_is_in_the_tree_of_the_docstring():
    for cls in CLASSES:
        assert f"{cls.__name__} " in f"{errors_module.__doc__}\n".replace("\n", " ")


def test_codes_are_words_of_their_own():
    codes = {cls.code for cls in CLASSES if cls is not SendEventsError}
    assert len(codes) == len(set(CLASSES)) - 1
    assert OutputUnserializableError.code == "output_unserializable"
    assert SendEventsError.code == "send_event_failed"
    assert StepError.code == "step_errored"
    assert FunctionConfigInvalidError is ConfigError


def test_a_users_subclass_keeps_its_parents_code():
    class NoStockError(NonRetriableError):
        pass

    assert NoStockError.code == "non_retriable_error"
    assert not NoStockError("x").retriable


@pytest.mark.parametrize(
    ("after", "ms"),
    [
        (30_000, 30_000),
        ("5m", 300_000),
        (timedelta(minutes=2), 120_000),
        (datetime(2030, 1, 31, tzinfo=UTC), 86_400_000),
        (datetime(2001, 9, 9, 1, 46, 50, tzinfo=UTC), 10_000),
        (datetime(1990, 1, 1, tzinfo=UTC), 1_000),
        (1, 1_000),
        ("500d", 86_400_000),
    ],
)
def test_retry_after_is_clipped_to_a_second_and_a_day(after, ms):
    assert RetryAfterError("busy", after).delay_ms(1_000_000_000_000) == ms


@pytest.mark.parametrize("after", [1.5, True, "soon", datetime(2030, 1, 1), -5])  # noqa: DTZ001
def test_retry_after_that_cant_be_read_is_refused(after):
    with pytest.raises(DurationError, match=r"^retry_after: "):
        RetryAfterError("busy", after)


def test_messages_tell_what_to_do():
    limit = LimitExceededError("event", 3, 4_000, "the bytes of event 'a'")
    assert str(limit) == (
        "the bytes of event 'a': 4,000 is over the limit of 3; "
        "make it smaller or raise Limits(event=...)"
    )
    output = OutputUnserializableError("output.a", "an object", "charge")
    assert '"charge" returned unserializable data' in str(output)
    assert "output.a" in output.message
    assert output.step_id == "charge"
    assert "the function returned" in str(OutputUnserializableError("output", "x"))
    assert str(StepNestedError()) == "Nested steps are not supported."
    assert "except Exception" in str(SuspendSwallowedError("s"))
    assert WorkerLostError("gone", worker="w1", step_id="s").worker == "w1"
    assert SendEventsError("x", ["1"]).ids == ["1"]
    assert NonRetriableError().message == ""
    assert NonRetriableError("m", quiet=True).quiet


def test_a_payload_holds_the_traceback_without_our_own_frames():
    def user_code():
        raise ValueError("no")

    try:
        user_code()
    except ValueError as error:
        whole = error_payload(error)
        cut = error_payload(error, skip_frames=1)
    assert whole["code"] == "unknown"
    assert whole["name"] == "ValueError"
    assert whole["message"] == "no"
    assert whole["stack"].startswith("Traceback (most recent call last):")
    assert "in test_a_payload" in whole["stack"]
    assert "in test_a_payload" not in cut["stack"]
    assert "in user_code" in cut["stack"]


def test_more_frames_to_skip_than_there_are():
    assert error_payload(ValueError("x"), skip_frames=9)["stack"] == "ValueError: x\n"


def test_an_escaped_step_error_keeps_the_error_of_its_step():
    stored = error_payload(StepError("declined", "CardError", "the stack", "charge"))
    assert stored == {
        "code": "step_errored",
        "message": "declined",
        "name": "CardError",
        "stack": "the stack",
    }
    back = from_payload(stored, step_id="charge")
    assert (back.message, back.name, back.stack, back.step_id) == (
        "declined",
        "CardError",
        "the stack",
        "charge",
    )


def test_payloads_of_others_are_tolerated():
    error = from_payload({})
    assert (error.message, error.name, error.stack) == ("", "Error", None)


def test_an_error_that_cant_be_printed_still_has_a_payload():
    class BrokenError(Exception):
        def __str__(self):
            raise RuntimeError("broken")

    assert "RuntimeError" in error_payload(BrokenError())["message"]
