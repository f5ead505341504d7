"""Durable functions on Redis."""

from stepwell.checkpointing import Checkpointing
from stepwell.durations import Duration
from stepwell.errors import NonRetriableError, RetryAfterError, StepError, StepwellError
from stepwell.events import Event, SendEventsResult
from stepwell.function import Function, FunctionReference, reference_function
from stepwell.limits import Limits
from stepwell.middleware import (
    Middleware,
    MiddlewareSync,
    StepMemos,
    TransformOutputResult,
    TransformOutputStepInfo,
)
from stepwell.retries import Backoff, Retries
from stepwell.serde.outputs import PydanticSerializer, Serializer
from stepwell.triggers import TriggerEvent
from stepwell.types import JSON

__all__ = [
    "JSON",
    "Backoff",
    "Checkpointing",
    "Duration",
    "Event",
    "Function",
    "FunctionReference",
    "Limits",
    "Middleware",
    "MiddlewareSync",
    "NonRetriableError",
    "PydanticSerializer",
    "Retries",
    "RetryAfterError",
    "SendEventsResult",
    "Serializer",
    "StepError",
    "StepMemos",
    "StepwellError",
    "TransformOutputResult",
    "TransformOutputStepInfo",
    "TriggerEvent",
    "reference_function",
]
