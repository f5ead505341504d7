"""Durable functions on Redis: ordinary Python functions whose steps are remembered.

What users import is here; everything else in `stepwell` may move. The engine (`stepwell_engine`) and the worker (`stepwell_workers`) are
loaded when a client first talks to Redis, so importing this starts nothing.
"""

from types import FunctionType as _FunctionType

from stepwell.checkpointing import Checkpointing
from stepwell.client import Client
from stepwell.context import Context, ContextSync
from stepwell.durations import Duration
from stepwell.errors import (
    NonRetriableError,
    RetryAfterError,
    RunCancelledError,
    RunFailedError,
    SendEventsError,
    StepError,
    StepwellError,
)
from stepwell.events import Event, SendEventsResult
from stepwell.flow import (
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    Priority,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
)
from stepwell.function import Function, FunctionReference, reference_function
from stepwell.group import Group, GroupSync, ParallelMode
from stepwell.limits import Limits
from stepwell.middleware import (
    Middleware,
    MiddlewareSync,
    StepMemos,
    TransformOutputResult,
    TransformOutputStepInfo,
)
from stepwell.records import (
    BulkCancel,
    EventRecord,
    Explanation,
    RemovedFunction,
    Run,
    RunStatus,
    StepRecord,
)
from stepwell.retries import Backoff, Retries
from stepwell.serde.outputs import PydanticSerializer, Serializer
from stepwell.step import Step, StepSync
from stepwell.triggers import TriggerCron, TriggerEvent
from stepwell.types import JSON

__all__ = [
    "JSON",
    "Backoff",
    "Batch",
    "BulkCancel",
    "Cancel",
    "Checkpointing",
    "Client",
    "Concurrency",
    "Context",
    "ContextSync",
    "Debounce",
    "Duration",
    "Event",
    "EventRecord",
    "Explanation",
    "Function",
    "FunctionReference",
    "Group",
    "GroupSync",
    "Limits",
    "Middleware",
    "MiddlewareSync",
    "NonRetriableError",
    "ParallelMode",
    "Priority",
    "PydanticSerializer",
    "RateLimit",
    "RemovedFunction",
    "Retries",
    "RetryAfterError",
    "Run",
    "RunCancelledError",
    "RunFailedError",
    "RunStatus",
    "SendEventsError",
    "SendEventsResult",
    "Serializer",
    "Singleton",
    "Step",
    "StepError",
    "StepMemos",
    "StepRecord",
    "StepSync",
    "StepwellError",
    "Throttle",
    "Timeouts",
    "TransformOutputResult",
    "TransformOutputStepInfo",
    "TriggerCron",
    "TriggerEvent",
    "reference_function",
]


def _publish() -> None:
    """Let tracebacks, reprs and pickles name things as users import them, wherever they are defined."""
    for name in __all__:
        value = globals()[name]
        if isinstance(value, type | _FunctionType):
            value.__module__ = __name__


_publish()
