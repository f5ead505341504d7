"""Every error Stepwell raises.

StepwellError
├── ConfigError (ValueError)            a function, option or limit was defined wrongly
│   ├── ExpressionError                 an expression doesn't compile
│   └── NamespaceError                  the namespace on the server was made with other settings
├── DurationError (ValueError)          a duration or point in time can't be read
├── SendError                           an event was not accepted
│   ├── EventInvalidError (ValueError)
│   ├── SendEventsError
│   └── StreamFullError
├── UnserializableError (TypeError)     a value can't be stored
│   └── OutputUnserializableError
├── LimitExceededError                  a size or count is over its limit
├── NonRetriableError                   raised by users: fail now
├── RetryAfterError                     raised by users: try again at that time
├── StepError                           a step failed for good
├── StepNestedError                     a step inside a step
├── SuspendSwallowedError               a bare `except:` caught the suspension
├── SignalConflictError                 another run waits for that signal
├── FunctionInUseError                  a function that is to be removed has live runs
├── RunError                            what asked for a run did not get its result
│   ├── FunctionNotFoundError
│   ├── RunNotFoundError
│   │   └── RunGatheringError
│   ├── RunNotStartedError
│   ├── RunFailedError
│   ├── RunCancelledError
│   └── InvokeTimeoutError (TimeoutError)
├── WorkerError
│   ├── WorkerLostError                 crashes of workers used up a run's crash deliveries
│   ├── LeaseLostError                  another worker owns the run now
│   └── ShutdownError                   the client or worker is closed
└── ServerError                         Redis can't serve us
    ├── ServerUnavailableError
    │   └── ServerLoadingError
    ├── ServerAuthError
    ├── ServerReadOnlyError
    ├── ServerTooOldError
    └── ServerFullError
"""

import re
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

RETRY_AFTER_MIN_MS: Final = 1_000
RETRY_AFTER_MAX_MS: Final = 86_400_000

_WORD_START: Final = re.compile(r"(?<!^)(?=[A-Z])")

INVOKE_TIMEOUT_NAME: Final = "InngestInvokeTimeoutError"
INVOKE_TIMEOUT_MESSAGE: Final = "Timed out waiting for invoked function to complete"
STEP_NESTED_MESSAGE: Final = "Nested steps are not supported."


class StepwellError(Exception):
    """Root of every error of Stepwell: `except StepwellError` catches them all.

    `code` is a stable word for programs (made of the class name here, inherited by users' classes);
    `retriable` tells whether another attempt may help.
    """

    code: ClassVar[str] = "unknown"
    retriable: ClassVar[bool] = True

    def __init_subclass__(cls, *, code: str = "", retriable: bool | None = None) -> None:
        super().__init_subclass__()
        if cls.__module__ == __name__:
            cls.code = code or _WORD_START.sub("_", cls.__name__.removesuffix("Error")).lower()
        if retriable is not None:
            cls.retriable = retriable

    @property
    def message(self) -> str:
        """The text of the error."""
        return str(self.args[0]) if self.args else ""


class ConfigError(StepwellError, ValueError, code="function_config_invalid", retriable=False):
    """A function, trigger, option or limit was defined wrongly; says what to write instead."""


FunctionConfigInvalidError = ConfigError
"""The name this error has in the `inngest` package."""


class ExpressionError(ConfigError, code="expression_invalid"):
    """An expression does not compile: its text and the offset of the fault."""

    def __init__(
        self, message: str, *, expression: str | None = None, position: int | None = None
    ) -> None:
        super().__init__(message)
        self.expression = expression
        self.position = position


class NamespaceError(ConfigError, code="namespace_mismatch"):
    """The namespace on the server was made with other settings, such as its number of shards."""


class DurationError(StepwellError, ValueError, code="duration_invalid", retriable=False):
    """A duration or point in time can't be read; names the argument and shows what to write."""


class SendError(StepwellError):
    """An event was not accepted."""


class EventInvalidError(SendError, ValueError, retriable=False):
    """An event is malformed; names the field and what to write instead."""


class SendEventsError(SendError, code="send_event_failed"):
    """Some events of a call were not accepted; `ids` are those of the events that were."""

    def __init__(self, message: str, ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.ids = list(ids)


class StreamFullError(SendError):
    """The event stream is at its set length: coordinators are behind. Send again later."""


class UnserializableError(StepwellError, TypeError, code="value_unserializable", retriable=False):
    """A value can't be stored. `path` tells where it is, `reason` what to do about it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class OutputUnserializableError(UnserializableError):
    """What a step (or, with `step_id` None, the function) returned can't be stored."""

    def __init__(self, path: str, reason: str, step_id: str | None = None) -> None:
        super().__init__(path, reason)
        who = "the function" if step_id is None else f'"{step_id}"'
        self.args = (f"{who} returned unserializable data: {path}: {reason}",)
        self.step_id = step_id


class LimitExceededError(StepwellError, retriable=False):
    """A size or count is over its limit; nothing was written.

    `setting` is the field of `stepwell.Limits` that moves it, `limit` its value, `seen` what was
    measured (in bytes, or a number) and `what` the thing measured.
    """

    def __init__(self, setting: str, limit: int, seen: int, what: str) -> None:
        super().__init__(
            f"{what}: {seen:,} is over the limit of {limit:,}; "
            f"make it smaller or raise Limits({setting}=...)"
        )
        self.setting = setting
        self.limit = limit
        self.seen = seen
        self.what = what


class NonRetriableError(StepwellError, code="non_retriable_error", retriable=False):
    """Raise it to fail a step or function now, with no further attempts.

    `quiet` keeps Stepwell from logging it.

    >>> raise NonRetriableError("no such customer")
    Traceback (most recent call last):
    stepwell.errors.NonRetriableError: no such customer
    """

    def __init__(self, message: str | None = None, quiet: bool = False) -> None:
        super().__init__(message or "")
        self.quiet = quiet


class RetryAfterError(StepwellError, code="retry_after_error"):
    """Raise it to have the next attempt at a time of your choice.

    `retry_after` is milliseconds, a `timedelta`, a string such as `"30s"`, or an aware `datetime`;
    the wait is held between 1 second and 24 hours. It still uses up an attempt. `quiet` keeps
    Stepwell from logging it. Raises `DurationError` when `retry_after` can't be read.
    """

    def __init__(
        self,
        message: str | None,
        retry_after: int | str | timedelta | datetime,
        quiet: bool = False,
    ) -> None:
        super().__init__(message or "")
        # Imported late: durations raises errors of this module.
        from stepwell.durations import EVER, parse_duration, parse_until

        self.retry_after = retry_after
        self.quiet = quiet
        self._at_ms: int | None = None
        self._delay_ms = 0
        if isinstance(retry_after, datetime):
            self._at_ms = parse_until(retry_after, argument="retry_after")
        else:
            self._delay_ms = parse_duration(retry_after, argument="retry_after", maximum=EVER)

    def delay_ms(self, now_ms: int) -> int:
        """Milliseconds to wait from `now_ms`, clipped to 1 s - 24 h."""
        wanted = self._delay_ms if self._at_ms is None else self._at_ms - now_ms
        return min(max(wanted, RETRY_AFTER_MIN_MS), RETRY_AFTER_MAX_MS)


class StepError(StepwellError, code="step_errored", retriable=False):
    """A step failed for good. Catch it to go on without the step's result.

    `name`, `message` and `stack` are those of the error raised inside the step.
    """

    def __init__(
        self,
        message: str,
        name: str = "Error",
        stack: str | None = None,
        step_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.stack = stack
        self.step_id = step_id


class StepNestedError(StepwellError, retriable=False):
    """A step was started inside another step's callback."""

    def __init__(self, message: str = STEP_NESTED_MESSAGE) -> None:
        super().__init__(message)


class SuspendSwallowedError(StepwellError, retriable=False):
    """A bare `except:` or `except BaseException:` caught the suspension of a function."""

    def __init__(self, step_id: str | None = None) -> None:
        step = "a step" if step_id is None else f'step "{step_id}"'
        super().__init__(
            f"the function went on after {step} had suspended it: a bare `except:` or "
            "`except BaseException:` around the step swallowed it; write `except Exception:`"
        )
        self.step_id = step_id


class SignalConflictError(StepwellError, retriable=False):
    """Another run waits for that signal already, and `on_conflict` is `"fail"`."""

    def __init__(self, signal: str) -> None:
        super().__init__(
            f'another run waits for signal "{signal}"; on_conflict="replace" takes it over'
        )
        self.signal = signal


class FunctionInUseError(StepwellError):
    """A function that is to be removed has runs that have not ended: `count` of them (counted up to 1,000)."""

    def __init__(self, message: str, count: int = 0) -> None:
        super().__init__(message)
        self.count = count


class RunError(StepwellError, retriable=False):
    """What asked for a run did not get its result."""


class FunctionNotFoundError(RunError):
    """No registered function has that app and id."""


class RunNotFoundError(RunError):
    """There is no run of that id, or its retention is over."""


class RunGatheringError(RunNotFoundError):
    """The run is not there yet: a debounce or batch gathers events for it. `until`: when that ends, unless it is put off or full before."""

    def __init__(self, message: str, *, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until


class RunNotStartedError(RunError):
    """The function's flow control let no run begin: rate limit, idempotency, singleton."""


class RunFailedError(RunError):
    """The run failed. `name`, `message` and `stack` are those of its error."""

    def __init__(
        self, message: str, *, run_id: str, name: str = "Error", stack: str | None = None
    ) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.name = name
        self.stack = stack


class RunCancelledError(RunError):
    """The run was cancelled before it ended."""


class InvokeTimeoutError(RunError, TimeoutError):
    """The invoked function did not end in time; it goes on running."""

    def __init__(self, message: str = INVOKE_TIMEOUT_MESSAGE) -> None:
        super().__init__(message)


class WorkerError(StepwellError):
    """Something happened to the process that runs the functions."""


class WorkerLostError(WorkerError, retriable=False):
    """A run lost its worker more often than `max_crashes` allows. `step_id` None is the body."""

    def __init__(self, message: str, *, worker: str, step_id: str | None = None) -> None:
        super().__init__(message)
        self.worker = worker
        self.step_id = step_id


class LeaseLostError(WorkerError):
    """Another worker owns the run now: what this one writes is refused."""


class ShutdownError(WorkerError):
    """The client or worker is closed, or is closing."""


class ServerError(StepwellError):
    """Redis can't do what was asked."""


class ServerUnavailableError(ServerError):
    """Redis can't be reached, or refuses to work for now."""


class ServerLoadingError(ServerUnavailableError):
    """Redis is still reading its data from disk."""


class ServerAuthError(ServerError, retriable=False):
    """Redis refused the user, the password or the command."""


class ServerReadOnlyError(ServerError):
    """The server is a read-only replica."""


class ServerTooOldError(ServerError, retriable=False):
    """The server is older than the oldest version supported."""


class ServerFullError(ServerError):
    """Redis is at its `maxmemory`."""


def error_payload(error: BaseException, *, skip_frames: int = 0) -> dict[str, Any]:
    """The stored form of `error`: its code, message, class name and traceback.

    `skip_frames` outermost frames, Stepwell's own, are left out of the traceback. An escaped
    `StepError` keeps the name, message and stack of the error inside its step.
    """
    if isinstance(error, (StepError, RunFailedError)):
        return {name: getattr(error, name) for name in ("code", "message", "name", "stack")}
    code = error.code if isinstance(error, StepwellError) else "unknown"
    tb = error.__traceback__
    for _ in range(skip_frames):
        tb = tb and tb.tb_next
    stack = "".join(traceback.format_exception(type(error), error, tb))
    return {"code": code, "message": _text(error), "name": type(error).__name__, "stack": stack}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001  a user's __str__ must not take the run down with it
        return f"<{type(error).__name__}.__str__ raised {type(broken).__name__}>"


def from_payload(payload: Mapping[str, object], *, step_id: str | None = None) -> StepError:
    """The `StepError` to raise for a stored error; unknown or missing fields are tolerated."""
    stack = payload.get("stack")
    return StepError(
        str(payload.get("message") or ""),
        name=str(payload.get("name") or "Error"),
        stack=None if stack is None else str(stack),
        step_id=step_id,
    )
