"""How an entry's end becomes a commit: returned, failed, to be retried, cancelled."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepwell.errors import OutputUnserializableError, StepwellError, UnserializableError
from stepwell.serde.values import pack
from stepwell_engine.store.transitions import Arg
from stepwell_workers import attempts, memo, outgoing
from stepwell_workers.errors import StepTimeoutError, StepUnexpectedError, StuckError

if TYPE_CHECKING:
    from stepwell_workers.entry import Entry
    from stepwell_workers.hooks import Hooks


@dataclass(frozen=True, slots=True)
class Outcome:
    """A clause for commit.lua, and what it means for people: `status` is a letter of the run's status, '' when it goes on."""

    clause: tuple[Arg, ...]
    status: str
    error: BaseException | None = None
    quiet: bool = False

    @property
    def payload(self) -> bytes:
        """What an end records: the output, or the error."""
        packed = self.clause[2]
        assert isinstance(packed, bytes)
        return packed


# Most functions return nothing.
_NOTHING = Outcome(("F", "c", pack(None, where="output"), b""), "c")


def of_value(entry: "Entry", value: Any) -> Outcome:
    """The function returned."""
    if value is None:
        return _NOTHING
    try:
        codec = entry.function.codec
        packed = pack(value if codec is None else codec.dump(value), where="output")
        outgoing.over(
            "the function's output",
            len(packed),
            entry.services.limits.step_output,
            "step_output",
        )
    except UnserializableError as error:
        return of_error(entry, OutputUnserializableError(error.path, error.reason))
    except StepwellError as error:
        return of_error(entry, error)
    return Outcome(("F", "c", packed, b""), "c")


def of_error(entry: "Entry", error: BaseException) -> Outcome:
    """The function raised: the run is retried later, or fails."""
    blob = entry.fields.get(b"t:")
    now = entry.services.clock.now_ms()
    verdict = attempts.judge(error, blob, entry.function, entry.services.random, now)
    tried = memo.add_attempt(blob, entry.services.worker_id, entry.started_ms, now, verdict.payload)
    if verdict.delay_ms is not None:
        return Outcome(("R", verdict.delay_ms, tried), "", error, verdict.quiet)
    failed = pack(verdict.payload, where="error")
    return Outcome(("F", "f", failed, tried), "f", error, verdict.quiet)


def interrupted(entry: "Entry") -> Outcome:
    """The task was cancelled: a sync step ran too long, its own code did it, or the loop is being torn down. It is tried again."""
    if entry.steps.timed_out:
        # Its thread can't be stopped; what it still writes is fenced off.
        return of_error(entry, StepTimeoutError(entry.function.step_timeout_ms))
    return of_error(entry, StepwellError("the function's task was cancelled, and not by Stepwell"))


def cancelled(packed: bytes) -> Outcome:
    """The run was cancelled; `packed` is the recorded reason."""
    return Outcome(("F", "k", packed), "k")


def stuck(entry: "Entry") -> Outcome:
    """Everything waits, and nothing would ever wake it."""
    error = StuckError(
        f"run {entry.run_id} of {entry.function.id} waits for something that is not a step; "
        "await only steps, or plain awaitables that finish by themselves"
    )
    return of_error(entry, error)


def target_missed(entry: "Entry") -> Outcome:
    """The planned step this item is for was not reached."""
    error = StepUnexpectedError(
        f"a planned step of {entry.function.id} was not reached when its own item ran; "
        "its code changed, or the order of steps depends on something that is not recorded"
    )
    return of_error(entry, error)


async def through_middleware(entry: "Entry", hooks: "Hooks", end: Outcome, value: Any) -> Outcome:
    """Let `transform_output` change a function's output or error."""
    error = end.error if isinstance(end.error, Exception) else None
    try:
        result = await hooks.finish(value, error)
    except Exception as raised:  # noqa: BLE001 - a hook's error is the run's, or it would never end
        return of_error(entry, raised)
    if result.error is not error and result.error is not None:
        return of_error(entry, result.error)
    if result.error is None and (error is not None or result.output is not value):
        return of_value(entry, result.output)
    return end
