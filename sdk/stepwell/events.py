"""Events: the facts that start functions and wake waiting ones, and their form on the wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from stepwell.errors import EventInvalidError, LimitExceededError, UnserializableError
from stepwell.ids import ulid_ms
from stepwell.limits import Limits
from stepwell.serde.values import pack, unpack

NAME_CHARS: Final = 512
ID_CHARS: Final = 255
OWN: Final = "stepwell/"
"""Kept free: no event, not even an internal one, has a name that begins so."""
RESERVED: Final = (OWN, "inngest/")
FIRST_TS: Final = 315_532_800_000  # 1980-01-01
LAST_TS: Final = 4_102_444_800_000  # 2100-01-01


def _data() -> dict[str, Any]:
    return {}


@dataclass(slots=True)
class Event:
    """Something that happened.

    `name` is what triggers and waits look for, `data` what it is about, `id` a key that
    de-duplicates for 24 hours whatever the name, `ts` when it happened (ms since 1970; 0 is now; a
    future one schedules its runs), `v` the version of its shape, `user` who it concerns. Raises
    `EventInvalidError`.

    >>> Event("shop/order.created", {"id": 7}).data["id"]
    7
    """

    name: str
    data: dict[str, Any] = field(default_factory=_data)
    id: str = ""
    ts: int = 0
    v: str | None = None
    user: dict[str, Any] = field(default_factory=_data)

    def __post_init__(self) -> None:
        # What most are, at one look: each event that is sent comes here twice.
        usual = (
            (type(self.name) is type(self.id) is str)
            and (type(self.data) is type(self.user) is dict)
            and (self.v is None and type(self.ts) is int and self.ts == 0)
        )
        if not (usual and 0 < len(self.name) <= NAME_CHARS and len(self.id) <= ID_CHARS):
            self._check()

    def _check(self) -> None:
        _check_text("name", self.name, NAME_CHARS)
        if not self.name:
            raise EventInvalidError('Event.name: empty; write a name such as "shop/order.created"')
        self.data = _mapping("data", self.data)
        self.user = _mapping("user", self.user)
        _check_text("id", self.id, ID_CHARS)
        if self.v is not None:
            _check_text("v", self.v, ID_CHARS)
        _check_ts(self.ts)

    def to_dict(self) -> dict[str, Any]:
        """The event as expressions and JSON see it: all six fields."""
        return {
            "name": self.name,
            "data": self.data,
            "id": self.id,
            "ts": self.ts,
            "v": self.v,
            "user": self.user,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Event":
        """The event in a JSON object; unknown fields are ignored. Raises `EventInvalidError`."""
        if "name" not in raw:
            raise EventInvalidError("Event.name: missing; every event has a name")
        return cls(
            name=raw["name"],
            data=raw.get("data") or {},
            id=raw.get("id") or "",
            ts=raw.get("ts") or 0,
            v=raw.get("v"),
            user=raw.get("user") or {},
        )


@dataclass(slots=True)
class SendEventsResult:
    """What a send came to: the ids of the accepted events, in order, and the error if any."""

    error: str | None = None
    ids: list[str] = field(default_factory=list[str])


def _check_text(argument: str, value: object, limit: int) -> None:
    if not isinstance(value, str):
        kind = type(value).__name__
        raise EventInvalidError(f"Event.{argument}: {value!r} is a {kind}; write a string")
    if len(value) > limit:
        raise EventInvalidError(
            f"Event.{argument}: {len(value)} characters, the most is {limit}: {value[:40]!r}..."
        )


def _mapping(argument: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    kind = type(value).__name__
    raise EventInvalidError(
        f'Event.{argument}: {value!r} is a {kind}; write a dict, such as {{"items": ...}}'
    )


def _check_ts(ts: object) -> None:
    if not isinstance(ts, int) or isinstance(ts, bool):
        kind = type(ts).__name__
        raise EventInvalidError(
            f"Event.ts: {ts!r} is a {kind}; write whole milliseconds since 1970, such as "
            "int(moment.timestamp() * 1000)"
        )
    if ts != 0 and not FIRST_TS <= ts < LAST_TS:
        raise EventInvalidError(
            f"Event.ts: {ts} is not between 1980 and 2100; write milliseconds since 1970 "
            "(not seconds), or 0 for now"
        )


def encode_event(event: Event) -> bytes:
    """`[name, id | nil, ts, v | nil, user | nil, data]` packed. Raises `EventInvalidError`."""
    fields = [event.name, event.id or None, event.ts, event.v, event.user or None, event.data]
    try:
        return pack(fields)
    except UnserializableError as error:
        raise _located(event, error) from error


def _located(event: Event, error: UnserializableError) -> EventInvalidError:
    """The same fault, told by the event's own field names."""
    path, reason = error.path, error.reason
    for index, name in enumerate(("name", "id", "ts", "v", "user", "data")):
        start = f"value[{index}]"
        if path.startswith(start):
            path = f"event.{name}{path[len(start) :]}"
            break
    return EventInvalidError(f'event "{event.name}": {path}: {reason}')


def encode_events(events: Sequence[Event], limits: Limits) -> list[bytes]:
    """All events of one send as bytes, validated whole before anything is written.

    Raises `EventInvalidError` (also for the reserved prefixes `stepwell/` and `inngest/`) and
    `LimitExceededError`.
    """
    if len(events) > limits.events:
        raise LimitExceededError("events", limits.events, len(events), "the events of one send")
    encoded: list[bytes] = []
    total = 0
    for event in events:
        check_sendable(event)
        data = encode_event(event)
        if len(data) > limits.event:
            what = f'the bytes of event "{event.name}"'
            raise LimitExceededError("event", limits.event, len(data), what)
        total += len(data)
        encoded.append(data)
    if total > limits.send:
        raise LimitExceededError("send", limits.send, total, "the bytes of one send")
    return encoded


def check_sendable(event: object) -> None:
    """Raise `EventInvalidError` for what users may not send, such as the reserved prefixes."""
    if not isinstance(event, Event):
        kind = type(event).__name__
        raise EventInvalidError(f"events: {event!r} is a {kind}; write Event(name=..., data=...)")
    # Middleware may have set fields since the event was made.
    event.__post_init__()
    if event.name.startswith(RESERVED):
        raise EventInvalidError(
            f"Event.name: {event.name!r} begins with a prefix kept for internal events "
            f"({' and '.join(RESERVED)}); use a prefix of your own"
        )


_new: Final = object.__new__


def decode_event(data: bytes, internal_id: str, accept_ms: int | None = None) -> Event:
    """The event in `data`; without an id it has its internal one, without `ts` its accept time.

    The accept time is that of the internal id unless given. Nothing is validated again: this runs
    for every event of every run.
    """
    event = _new(Event)
    event.name, id_, ts, event.v, user, event.data = unpack(data)
    event.id = id_ or internal_id
    event.ts = ts or (ulid_ms(internal_id) if accept_ms is None else accept_ms)
    event.user = user or {}
    return event
