"""What is remembered of a run: step identities, recorded results, attempts. Pure functions over the bytes of the run's hash."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgpack

from stepwell.errors import OutputUnserializableError, StepError, UnserializableError
from stepwell.events import Event, decode_event
from stepwell.ids import step_key
from stepwell.serde.values import pack, unpack
from stepwell_engine import luapack

STACK_LIMIT = 4096

# Values that need none of serde's checks.
_SURE = frozenset({type(None), bool, bytes})
_pack_sure = cast("Callable[[object], bytes]", cast("Any", msgpack).Packer().pack)


class StepName(NamedTuple):
    """A step's key and the names of its fields in the run's hash."""

    step_id: str
    key: str
    record: bytes
    pending: bytes
    attempts: bytes


@lru_cache(maxsize=65_536)
def step_name(step_id: str, index: int) -> StepName:
    """The names of the `index`-th use of `step_id` in a run."""
    key = step_key(step_id, index)
    raw = key.encode()
    return StepName(step_id, key, b"s:" + raw, b"p:" + raw, b"t:" + raw)


def done(op: str, step_id: str, started: int, ended: int, attempt: int, value: Any) -> bytes:
    """The record of a step that returned `value`."""
    if type(value) in _SURE:
        return b"d" + _pack_sure([op, step_id, started, ended, attempt, value])
    try:
        return b"d" + pack([op, step_id, started, ended, attempt, value], where="record")
    except UnserializableError as error:
        path = error.path.replace("record[5]", "output", 1)
        raise OutputUnserializableError(path, error.reason, step_id) from error


def failed(
    op: str, step_id: str, started: int, ended: int, attempt: int, error: dict[str, Any]
) -> bytes:
    """The record of a step that failed for good."""
    return b"e" + pack([op, step_id, started, ended, attempt, error], where=f"step {step_id!r}")


def head(op: str, step_id: str, at: int, details: dict[str, Any]) -> bytes:
    """The description of a step that waits for something."""
    return pack([op, step_id, at, details], where=f"step {step_id!r}")


def read(record: bytes, step_id: str, decode: Any) -> Any:
    """The value of a step record, or its `StepError`.

    `decode` turns the bytes of a result that came from outside (event, signal, child) into a value.
    """
    flag = record[:1]
    if flag == b"d":
        return unpack(record[1:])[5]
    if flag == b"e":
        raise step_error(unpack(record[1:])[5], step_id)
    status, _, _, value = luapack.read(record[1:])
    if status == b"n":
        return None
    if status == b"e":
        raise step_error(unpack(value), step_id)
    return decode(value)


def step_error(payload: dict[str, Any], step_id: str) -> StepError:
    """The error a caller of a failed step sees, made from what was recorded."""
    return StepError(
        message=str(payload.get("message", "")),
        name=str(payload.get("name", "Error")),
        stack=payload.get("stack"),
        step_id=step_id,
    )


def attempts_made(blob: bytes | None) -> int:
    """How many attempts failed so far, from an attempts blob."""
    return int(blob[:2]) if blob else 0


def add_attempt(
    blob: bytes | None, worker: str, started: int, ended: int, error: dict[str, Any]
) -> bytes:
    """The attempts blob with one failed attempt more."""
    made = attempts_made(blob)
    stack = error.get("stack")
    if isinstance(stack, str) and len(stack) > STACK_LIMIT:
        error = {**error, "stack": "…" + stack[-STACK_LIMIT:]}
    entry = pack([made, worker, started, ended, error], where="attempt")
    return b"%02d" % (made + 1) + (blob[2:] if blob else b"") + entry


def count_records(fields: dict[bytes, bytes]) -> int:
    """How many steps of a run are recorded."""
    return sum(1 for name in fields if name[:2] == b"s:")


def read_event(blob: bytes) -> Event:
    """The event in a blob: its internal id, then the encoded event."""
    return decode_event(blob[26:], blob[:26].decode())


def read_events(fields: Mapping[bytes, bytes], trigger: Event) -> list[Event]:
    """All events of a run in order: of its batch or collected debounce, else `trigger` alone."""
    packed = fields.get(b"eb")
    if not packed:
        return [trigger]
    others = [read_event(blob) for blob in luapack.read(packed)]
    return [*others, trigger] if fields.get(b"el") else [trigger, *others]
