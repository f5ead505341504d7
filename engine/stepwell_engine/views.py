"""From stored bytes to the public records: a run's hash, an event's record. Pure functions.

What is missing or of a later version is left out rather than refused: these serve people who look
for what went wrong.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from stepwell.events import Event, decode_event
from stepwell.ids import ulid_ms
from stepwell.records import (
    Attempt,
    Entry,
    ErrorInfo,
    EventOutcome,
    EventRecord,
    Run,
    RunSummary,
    StepRecord,
    StepStatus,
    run_status,
)
from stepwell.serde.values import unpack
from stepwell_engine import luapack

Fields = Mapping[bytes, bytes]

SUMMARY: Final = (b"st", b"rs", b"a", b"f", b"t", b"e", b"qa", b"sa", b"ea", b"er", b"pa")
"""The fields of a run's hash that `summary` needs."""

NOT_FOUND: Final = "not_found"
"""The outcome of an invoke whose function no worker has registered, or that was removed."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STEP: Final = re.compile(r":([0-9A-Z]{16})$")
_OPS: Final = {"z": "sleep", "w": "wait", "g": "signal", "i": "invoke", "r": "run", "P": "run"}
_WORDS: Final = {"c": "finished", "f": "failed", "k": "cancelled"}


def moment(ms: float) -> datetime:
    """Milliseconds since 1970 as an aware datetime."""
    return _EPOCH + timedelta(milliseconds=int(ms))


def summary(run_id: str, fn_id: str, fields: Fields) -> RunSummary:
    """A run in short, from the fields of `SUMMARY`."""
    return RunSummary(**_summary(run_id, fn_id, fields))


def run(run_id: str, fn_id: str, fields: Fields) -> Run:
    """Everything recorded about a run, from its whole hash."""
    output = fields.get(b"o")
    # Of several (the events of its batch), the first.
    parent = fields.get(b"pa", b"").decode().partition(" ")[0]
    return Run(
        **_summary(run_id, fn_id, fields),
        output=None if output is None else unpack(output),
        events=trigger_events(fields),
        steps=tuple(sorted(_steps(fields), key=lambda s: (s.started_at or _EPOCH, s.id))),
        attempts=_attempts(fields.get(b"t:")),
        entries=tuple(_entries(history(fields))),
        parent_step_key=parent[27:] or None,
        worker=fields.get(b"w", b"").decode() or None,
        crashes=int(fields.get(b"cr") or 0),
        state_bytes=int(fields.get(b"sz") or 0),
        warnings=tuple(fields.get(b"wn", b"").decode(errors="replace").splitlines()),
    )


def trigger_event(fields: Fields) -> Event | None:
    """The event that started a run; None for a run cancelled before it was created."""
    blob = fields.get(b"e")
    return _decoded(blob) if blob else None


def trigger_events(fields: Fields) -> tuple[Event, ...]:
    """All events of a run in order: those of its batch or collected debounce, else the one that started it."""
    event = trigger_event(fields)
    if event is None:
        return ()
    packed = fields.get(b"eb")
    others = tuple(_decoded(blob) for blob in luapack.read(packed)) if packed else ()
    return (*others, event) if fields.get(b"el") else (event, *others)


def event_of(fields: Mapping[bytes, bytes | None], event_id: str) -> Event | None:
    """The event of that internal id, if it is one of a run's."""
    blob, packed = fields.get(b"e"), fields.get(b"eb")
    blobs = [blob, *(luapack.read(packed) if packed else ())]
    return next((_decoded(b) for b in blobs if b and b[:26] == event_id.encode()), None)


def _decoded(blob: bytes) -> Event:
    event_id = blob[:26].decode()
    return decode_event(blob[26:], event_id, ulid_ms(event_id))


def error_info(payload: object) -> ErrorInfo | None:
    """A recorded error; None when there is none."""
    if not isinstance(payload, dict):
        return None
    found = cast("dict[str, Any]", payload)
    stack = found.get("stack")
    return ErrorInfo(
        code=str(found.get("code") or "unknown"),
        name=str(found.get("name") or "Error"),
        message=str(found.get("message") or ""),
        stack=None if stack is None else str(stack),
    )


def cancelled_error(message: str, reason: str) -> dict[str, str | None]:
    """The `er` of a run that is cancelled. `reason` is a word for metrics and programs (metrics.REASONS)."""
    return {
        "code": "run_cancelled",
        "name": "RunCancelledError",
        "message": message,
        "stack": None,
        "reason": reason,
    }


def event(event_id: str, record: bytes, accepted_ms: int) -> EventRecord:
    """An event's record, `e:<id>`."""
    if record[:1] == b"D":
        original = record[1:].decode()
        return EventRecord(id=event_id, accepted_at=moment(accepted_ms), duplicate_of=original)
    found: dict[str, Any] = unpack(record)
    encoded: bytes | None = found.get("event")
    return EventRecord(
        id=event_id,
        accepted_at=moment(accepted_ms),
        event=None if encoded is None else decode_event(encoded, event_id, accepted_ms),
        outcomes=tuple(
            EventOutcome(app_id=app, fn_id=fn, outcome=outcome, run_id=run_id or None)
            for app, fn, outcome, run_id, *_ in found.get("plan") or ()
        ),
    )


def started(
    event_id: str, accepted_ms: int, runs: Sequence[tuple[str, str, str]]
) -> EventRecord | None:
    """An event known by its runs alone, as (app, fn, run id); None when there are none."""
    if not runs:
        return None
    return EventRecord(
        id=event_id,
        accepted_at=moment(accepted_ms),
        outcomes=tuple(
            EventOutcome(app_id=app, fn_id=fn, outcome="started", run_id=run)
            for app, fn, run in runs
        ),
    )


def decided(outcome: EventOutcome, text: bytes | None, window: bytes | None = None) -> EventOutcome:
    """An outcome as the scripts decided it: `text` of the event, and `window` of the run it was gathered for, if that began not."""
    if text is None:
        return outcome
    word, _, run_id = text.decode().partition(" ")
    if window is None or window.startswith(b"open "):
        return replace(outcome, outcome=word, run_id=run_id or None)
    told, _, run_id = window.decode().partition(" ")
    return replace(outcome, outcome=told, run_id=run_id or None, gathered=word)


def waiting_event(event_id: str, encoded: bytes, accepted_ms: int) -> EventRecord:
    """An event that no coordinator has handled yet."""
    return EventRecord(
        id=event_id,
        accepted_at=moment(accepted_ms),
        event=decode_event(encoded, event_id, accepted_ms),
        pending=True,
    )


def _summary(run_id: str, fn_id: str, fields: Fields) -> dict[str, Any]:
    error = fields.get(b"er")
    event = trigger_event(fields)
    return {
        "id": run_id,
        "app_id": fields.get(b"a", b"").decode(),
        "fn_id": fn_id,
        "status": run_status(fields[b"st"].decode(), fields.get(b"rs", b"").decode()),
        "event_name": event.name if event else "",
        "created_at": moment(ulid_ms(run_id)),
        "queued_at": _at(fields, b"qa"),
        "started_at": _at(fields, b"sa"),
        "ended_at": _at(fields, b"ea"),
        "error": error_info(unpack(error)) if error else None,
        "parent_run_id": fields.get(b"pa", b"")[:26].decode() or None,
    }


def _at(fields: Fields, name: bytes) -> datetime | None:
    raw = fields.get(name)
    return moment(float(raw)) if raw else None


def _attempts(blob: bytes | None) -> tuple[Attempt, ...]:
    if not blob:
        return ()
    return tuple(
        Attempt(
            number=number,
            worker=worker,
            started_at=moment(started),
            ended_at=moment(ended),
            error=error_info(error) or ErrorInfo(),
        )
        for number, worker, started, ended, error in luapack.read_all(blob[2:])
    )


def _steps(fields: Fields) -> Iterator[StepRecord]:
    for name, value in fields.items():
        key = name[2:].decode(errors="replace")
        attempts = _attempts(fields.get(b"t:" + name[2:]))
        if name.startswith(b"s:"):
            yield _recorded(key, value, attempts)
        elif name.startswith(b"p:"):
            yield _pending(key, value, attempts, bool(fields.get(b"l:" + name[2:])))


def _recorded(key: str, value: bytes, attempts: tuple[Attempt, ...]) -> StepRecord:
    if value[:1] == b"x":
        return _delivered(key, value[1:], attempts)
    op, step_id, started, ended, _, result = unpack(value[1:])
    failed = value[:1] == b"e"
    return StepRecord(
        id=step_id,
        key=key,
        op=op,
        status=StepStatus.FAILED if failed else StepStatus.COMPLETED,
        output=None if failed else result,
        error=error_info(result) if failed else None,
        attempts=attempts,
        started_at=moment(started),
        ended_at=moment(ended),
    )


def _delivered(key: str, value: bytes, attempts: tuple[Attempt, ...]) -> StepRecord:
    status, ended, head, result = luapack.read(value)
    op, step_id, started, details = _head(head, "signal")
    failed = status == b"e"
    return StepRecord(
        id=step_id or key,
        key=key,
        op=op,
        status=StepStatus.FAILED if failed else StepStatus.COMPLETED,
        output=_result(op, result) if status == b"v" else None,
        error=error_info(unpack(result)) if failed else None,
        attempts=attempts,
        started_at=None if started is None else moment(started),
        ended_at=moment(ended),
        details=details,
    )


def _result(op: str, value: bytes) -> Any:
    if op != "wait":
        return unpack(value)
    event_id = value[:26].decode()
    return decode_event(value[26:], event_id, ulid_ms(event_id)).to_dict()


def _pending(key: str, value: bytes, attempts: tuple[Attempt, ...], leased: bool) -> StepRecord:
    raw = luapack.read(value)
    kind: str = raw[0].decode()
    op, step_id, started, details = _head(raw[3], _OPS.get(kind, kind))
    status = StepStatus.WAITING
    if kind == "P":
        status = StepStatus.RUNNING if leased else StepStatus.QUEUED
    elif kind == "r":
        status = StepStatus.RETRYING
    return StepRecord(
        id=step_id or key,
        key=key,
        op=op,
        status=status,
        attempts=attempts,
        started_at=moment(raw[2] / 1000 if started is None else started),
        due_at=moment(raw[1]) if raw[1] else None,
        details=details,
    )


def _head(head: bytes, op: str) -> tuple[str, str, int | None, dict[str, Any]]:
    """Op, step id, registration (ms) and details of a step that waits; a signal may be early."""
    if not head:
        return op, "", None, {}
    op, step_id, started, details = unpack(head)
    return op, step_id, started, details or {}


def history(fields: Fields) -> str:
    """A run's history. The first entry's lines are written only when others follow: until then they are in the fields."""
    written = fields.get(b"h")
    if written is not None or b"sa" not in fields:
        return (written or b"").decode(errors="replace")
    started, worker, queued, ended, status = (
        fields.get(name, b"").decode(errors="replace")
        for name in (b"sa", b"w", b"qa", b"ea", b"st")
    )
    lines = f"L{started} {worker} {queued or started}\n"
    return lines + (f"F{ended} {status}\n" if ended else "")


def _entries(history: str) -> Iterator[Entry]:
    """Pairs the lines of a run's history: leased, then released or lost."""
    open_: dict[str | None, Entry] = {}
    for line in history.splitlines():
        found = _STEP.search(line)
        step = found[1] if found else None
        kind, rest = line[:1], _STEP.sub("", line[1:])
        ms, _, detail = rest.partition(" ")
        if not ms.replace(".", "", 1).isdigit():
            continue
        if kind == "L":
            worker, _, queued = detail.rpartition(" ")
            entry = Entry(
                worker=worker,
                queued_at=moment(float(queued or ms)),
                started_at=moment(float(ms)),
                step_key=step,
            )
            if step in open_:
                yield open_.pop(step)
            open_[step] = entry
        elif (entry_ := open_.pop(step, None)) is not None:
            yield _closed(entry_, moment(float(ms)), _outcome(kind, detail.strip()))
    yield from open_.values()


def _closed(entry: Entry, ended: datetime, outcome: str) -> Entry:
    return Entry(
        worker=entry.worker,
        queued_at=entry.queued_at,
        started_at=entry.started_at,
        ended_at=ended,
        outcome=outcome,
        step_key=entry.step_key,
    )


def _outcome(kind: str, detail: str) -> str:
    if kind == "F":
        return _WORDS.get(detail, "finished")
    named = {"S": "suspended", "R": detail or "handed back", "D": "step done", "X": "lost"}
    if kind == "Y":
        return f"yielded: {detail}" if detail else "yielded"
    return named.get(kind, "")
