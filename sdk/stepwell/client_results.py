"""What an invoke gives back: the output of its run as the type that is declared, or the error that it ended with."""

from typing import Any

from stepwell.errors import RunCancelledError, RunFailedError
from stepwell.function import Function, FunctionReference
from stepwell.records import ErrorInfo, RunStatus
from stepwell.runtime import UNSET
from stepwell.serde.outputs import Serializer, codec_for


def run_output(run_id: str, status: RunStatus, value: Any) -> Any:
    """What a run that has ended returned. Raises RunFailedError, RunCancelledError."""
    if status is RunStatus.COMPLETED:
        return value
    error = value if isinstance(value, ErrorInfo) else ErrorInfo()
    if status is RunStatus.CANCELLED:
        raise RunCancelledError(f"run {run_id} was cancelled: {error.message}")
    raise RunFailedError(error.message, run_id=run_id, name=error.name, stack=error.stack)


def as_declared(function: object, plain: Any, serializer: Serializer | None) -> Any:
    """An invoked function's output as its declared type."""
    if isinstance(function, Function):
        codec = function.codec
    elif isinstance(function, FunctionReference) and function.output_type is not UNSET:
        codec = codec_for(None, function.output_type, serializer)
    else:
        return plain
    return plain if codec is None else codec.load(plain)
