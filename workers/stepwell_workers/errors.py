"""Errors that only a worker raises, inside a run."""

from stepwell.errors import NonRetriableError, StepwellError


class StepTimeoutError(StepwellError):
    """A step ran longer than its function's `step_timeout`. It counts as a failed attempt."""

    def __init__(self, timeout_ms: int) -> None:
        super().__init__(
            f"the step ran longer than its function's step_timeout of {timeout_ms / 1000:g} s; "
            "raise step_timeout= in create_function, or split the step"
        )


class RunCancelled(StepwellError):  # noqa: N818 - a state, recorded as the run's error
    """The run was cancelled without a reason given."""


class StuckError(NonRetriableError):
    """The function waits for something that no step will bring."""


class StepUnexpectedError(NonRetriableError):
    """A planned step was not reached when its item ran: the code changed, or its order is not deterministic."""
