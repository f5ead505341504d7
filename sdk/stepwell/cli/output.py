"""What the commands print: JSON of any record, tables, times and durations as people read them."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {
    "completed": "green",
    "started": "green",
    "ok": "green",
    "failed": "red",
    "problem": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "warning": "yellow",
    "retrying": "yellow",
    "running": "cyan",
    "waiting": "blue",
}


def plain(value: Any) -> Any:
    """A record as JSON types; what JSON hasn't is written as in events: ISO times, base64 bytes."""
    from stepwell.serde.values import to_json

    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return _object(value)  # pyright: ignore[reportUnknownArgumentType] - mypy knows
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in cast("Sequence[Any]", value)]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return to_json(value)


def _object(pairs: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): plain(each) for name, each in pairs.items()}


def print_json(value: Any) -> None:
    """Print `value` as indented JSON."""
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def console() -> "Console":
    """Where tables go: as wide as the terminal, wider where there is none to cut for."""
    from rich.console import Console

    return Console(
        file=sys.stdout,
        highlight=False,
        soft_wrap=False,
        width=None if sys.stdout.isatty() else 160,
    )


def table(*columns: str, title: str | None = None) -> "Table":
    """An empty table in the house style."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def print_rows(columns: Iterable[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """A table of plain texts, or the sentence `empty`; the status words get their colour."""
    from rich.text import Text

    from stepwell.texts import one_line

    made, any_row = table(*columns), False
    for row in rows:
        any_row = True
        made.add_row(*(Text(one_line(cell), style=STYLES.get(cell, "")) for cell in row))
    if any_row:
        console().print(made)
    else:
        typer.echo(empty)


def moment(at: datetime | None) -> str:
    """A time in the local zone, to the second; "" for none."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock(at: datetime | None) -> str:
    """The time of day in the local zone, to the millisecond; "" for none."""
    return "" if at is None else at.astimezone().strftime("%H:%M:%S.%f")[:-3]


def duration(start: datetime | None, end: datetime | None) -> str:
    """The time between two moments: `340 ms`, `12.5 s`, `4 m 10 s`, `3 d 4 h`; "" if one is missing."""
    return "" if start is None or end is None else span(end - start)


def span(length: timedelta) -> str:
    """A length of time in its two largest units.

    >>> span(timedelta(minutes=4, seconds=10))
    '4 m 10 s'
    """
    seconds = max(0.0, length.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, name, small, lesser in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // small} {lesser}"
    raise AssertionError(seconds)


def short(value: Any, limit: int = 120) -> str:
    """A value as one line of JSON, cut at `limit` characters."""
    from stepwell.texts import one_line

    return one_line(json.dumps(plain(value), ensure_ascii=False), limit)
