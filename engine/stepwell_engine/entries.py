"""Stream entries as values: what one row of an event stream says, parsed once."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from stepwell.events import Event, decode_event
from stepwell.ids import is_ulid

USER, INVOKED, ENDED, LOOK, SKIPPED = "u", "v", "f", "l", "s"

SKIPPED_EVENT: Final = "inngest/function.skipped"


class Entry(NamedTuple):
    """One accepted event. `sid` is its stream entry, `us` the accept time.

    Ends and look-backs have no id and no data but `run`: the runs that ended, their ids in a row, or "run:step" of the wait. Skips have
    the event that started no run as `data`, in the form of `blob`, and the rest in `extra`, until ends.py makes them whole.
    """

    sid: bytes
    kind: str
    id: str
    name: str
    us: int
    data: bytes
    extra: bytes = b""
    run: str = ""

    @property
    def ended(self) -> list[str]:
        """The runs that ended, of an end."""
        return [self.run[at : at + 26] for at in range(0, len(self.run), 26)]

    @property
    def events(self) -> int:
        """How many events the entry stands for."""
        return len(self.run) // 26 if self.kind == ENDED else 1

    @property
    def order(self) -> int:
        """Its place among the entries of one ms, as the stream has them: what was sent first starts first."""
        return min(int(self.sid.rpartition(b"-")[2] or 0), 999)

    @property
    def blob(self) -> bytes:
        """The form in which runs and waits store the event."""
        return self.id.encode() + self.data

    def decode(self) -> Event:
        """The event itself. Raises ValueError for bytes that are none."""
        return decode_event(self.data, self.id, self.us // 1000)


class Batch:
    """Entries of one shard's event stream, and those that say nothing (`wakes`) or nothing readable (`bad`).

    `cancelled`: of each run that was cancelled its function's number, a space, and the reason.
    """

    __slots__ = ("bad", "cancelled", "entries", "shard", "wakes")

    def __init__(self, shard: int, rows: Iterable[Any]) -> None:
        self.shard = shard
        self.entries: list[Entry] = []
        self.wakes: list[bytes] = []
        self.bad: list[bytes] = []
        self.cancelled: list[str] = []
        add = self.entries.append
        for sid, flat in rows:
            try:
                # The scripts write the fields in this order: k i n t d x.
                _, kind, _, id_, _, name, _, us, _, data, _, extra = flat
                if kind == b"u" or kind == b"v":
                    add(Entry(sid, kind.decode(), _ulid(id_), name.decode(), int(us), data, extra))
                elif kind == b"f":
                    add(Entry(sid, ENDED, "", name.decode(), int(us), b"", b"", _ulids(data)))
                    if extra:
                        self.cancelled.append(extra.decode())
                elif kind == b"s":
                    add(Entry(sid, SKIPPED, "", name.decode(), int(us), data, extra))
                elif kind == b"l":
                    add(Entry(sid, LOOK, "", name.decode(), int(us), b"", b"", data.decode()))
                elif kind == b"w":
                    self.wakes.append(sid)
                    if extra:
                        self.cancelled.append(extra.decode())
                else:
                    self.bad.append(sid)
            except (ValueError, TypeError):
                self.bad.append(sid)

    @property
    def ids(self) -> list[bytes]:
        """All entries' stream ids."""
        return [*(e.sid for e in self.entries), *self.wakes, *self.bad]


def _ulid(raw: bytes) -> str:
    text = raw.decode()
    if not is_ulid(text):
        raise ValueError(text)
    return text


def _ulids(raw: bytes) -> str:
    text = raw.decode()
    if not text or len(text) % 26 or not is_ulid(text[:26]):
        raise ValueError(text)
    return text


def blob_event(blob: bytes, accept_ms: int) -> Event:
    """The event in a stored blob: 26 characters of id, then its encoding. Raises ValueError."""
    return decode_event(blob[26:], blob[:26].decode(), accept_ms)


def future_ts(data: bytes, name_bytes: int) -> int:
    """The `ts` in an encoded event (0 = none) without decoding the rest: this runs for every event.

    `name_bytes` is the length of its name in UTF-8.
    """
    # [name, id | nil, ts, ...]: a head byte, the name and its header, then the id.
    at = 1 + name_bytes + (1 if name_bytes < 32 else 2 if name_bytes < 256 else 3)
    head = data[at]
    if head == 0xC0:
        at += 1
    elif 0xA0 <= head <= 0xBF:
        at += 1 + (head & 31)
    elif head == 0xD9:
        at += 2 + data[at + 1]
    else:
        at += 3 + int.from_bytes(data[at + 1 : at + 3], "big")
    if data[at] == 0xCF:  # any date that a user may write needs 64 bits
        return int.from_bytes(data[at + 1 : at + 9], "big")
    return 0
