"""What a function is given: its event, its place in the run, and its steps."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from stepwell.events import Event
from stepwell.group import Group, GroupSync
from stepwell.step import Step, StepSync

# Set while a step's callback runs, and only then.
STEP_ATTEMPT: ContextVar[int | None] = ContextVar("stepwell_step_attempt", default=None)


@dataclass(kw_only=True)
class _Context:
    """What both kinds of context share. `max_attempts` counts the first one too.

    `logger` is silent while recorded steps are replayed, so a line is written once a run. Middleware may set attributes of its own.
    """

    event: Event
    events: list[Event]
    run_id: str
    entry_attempt: int
    max_attempts: int
    function_id: str
    fn_id: str
    app_id: str
    logger: Any

    @property
    def attempt(self) -> int:
        """0-based: in a step's callback that step's attempt, in the body the entry's."""
        in_step = STEP_ATTEMPT.get()
        return self.entry_attempt if in_step is None else in_step


@dataclass(kw_only=True)
class Context(_Context):
    """The context of an asynchronous function: `async def fn(ctx: stepwell.Context)`."""

    step: Step
    group: Group


@dataclass(kw_only=True)
class ContextSync(_Context):
    """The context of a synchronous function: `def fn(ctx: stepwell.ContextSync)`."""

    step: StepSync
    group: GroupSync
