"""`stepwell send`: one event, or a file of them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from stepwell.cli import options, output
from stepwell.cli.connect import ask
from stepwell.errors import EventInvalidError

if TYPE_CHECKING:
    from stepwell.events import Event


def send(
    name: Annotated[str, typer.Argument(help="The event's name: shop/order.created")],
    data: Annotated[
        str | None,
        typer.Argument(help="Its data: a JSON object, - for stdin, or @file.json", metavar="JSON"),
    ] = None,
    id_: Annotated[str, typer.Option("--id", help="A key that de-duplicates for 24 hours.")] = "",
    ts: Annotated[
        int, typer.Option(help="When it happened, in ms since 1970; a future one schedules.")
    ] = 0,
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    shards: options.Shards = None,
    as_json: options.Json = False,
) -> None:
    """Send an event and print its id.

    A file or stdin may hold several JSON objects, one a line: one event each, all in one send.

    stepwell send shop/order.created '{"id": "A-1001", "total": 42}'
    """
    events = list(_events(name, data, id_, ts))
    ids = ask(lambda client: client.send(events), redis_url, namespace, shards)
    if as_json:
        output.print_json({"ids": ids})
        return
    for event_id in ids:
        typer.echo(event_id)


def _events(name: str, data: str | None, id_: str, ts: int) -> "Iterator[Event]":
    from stepwell.events import Event

    objects = list(_objects(data))
    if id_ and len(objects) > 1:
        raise EventInvalidError(
            f"--id: one key for {len(objects)} events; only the first would be accepted. "
            "Leave it out, or send one event"
        )
    for each in objects:
        yield Event(name=name, data=each, id=id_, ts=ts)


def _objects(data: str | None) -> Iterator[dict[str, Any]]:
    if data is None:
        yield {}
        return
    where, text = _source(data)
    try:
        whole: Any = json.loads(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or data == text:
            raise _not_json(where, error) from None
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield _line(line, f"{where}, line {number}")
        return
    yield _mapping(whole, where)


def _source(data: str) -> tuple[str, str]:
    if data == "-":
        return "stdin", sys.stdin.read()
    if data.startswith("@"):
        try:
            return data[1:], Path(data[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise EventInvalidError(f"{data}: can't be read: {error}") from None
    return "JSON", data


def _line(line: str, where: str) -> dict[str, Any]:
    try:
        return _mapping(json.loads(line), where)
    except ValueError as error:
        if isinstance(error, EventInvalidError):
            raise
        raise _not_json(where, error) from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EventInvalidError(
            f"{where}: an event's data is a JSON object, not {json.dumps(value)[:40]}; "
            """write '{"key": "value"}'"""
        )
    return cast("dict[str, Any]", value)


def _not_json(where: str, error: Exception) -> EventInvalidError:
    return EventInvalidError(
        f"{where}: not JSON: {error}; write an object such as "
        """'{"id": "A-1001"}' (in single quotes), - or @file.json"""
    )
