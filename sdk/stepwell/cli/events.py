"""`stepwell events`: what became of an event."""

from typing import TYPE_CHECKING, Annotated

import typer

from stepwell.cli import options, output
from stepwell.cli.connect import ask
from stepwell.texts import one_line

if TYPE_CHECKING:
    from stepwell.records import EventRecord

app = typer.Typer(no_args_is_help=True, help="Look at events.")


@app.callback()
def events() -> None:
    """Look at events."""


@app.command()
def show(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="An id that send returned.")],
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Show an event and its outcome for each function that wanted it."""
    record = ask(lambda client: client.get_event(event_id), redis_url, namespace)
    if record is None:
        typer.secho(
            f"Error: there is no event {event_id!r} in namespace {namespace or 'stepwell'!r}; its "
            "record is kept for two days, and as long as nobody has handled it",
            fg="red",
            err=True,
        )
        raise typer.Exit(1)
    if as_json:
        outcomes = [{**output.plain(o), "reason": o.reason} for o in record.outcomes]
        output.print_json({**output.plain(record), "outcomes": outcomes})
        return
    _print(record)


def _print(record: "EventRecord") -> None:
    event = record.event
    name = one_line(event.name) if event else ""
    typer.echo(f"{record.id}  {name}  {output.moment(record.accepted_at)}")
    if event is not None:
        typer.echo(f"data: {output.short(event.data, 2000)}")
    if record.duplicate_of:
        typer.echo(f"A duplicate of {record.duplicate_of}: it started nothing.")
    elif record.pending:
        typer.echo("Accepted; no coordinator has handled it yet.")
    else:
        rows = [
            (o.outcome, f"{o.app_id}/{o.fn_id}", o.run_id or "", o.reason) for o in record.outcomes
        ]
        columns = ("OUTCOME", "FUNCTION", "RUN", "WHY")
        output.print_rows(columns, rows, "No function wanted it.")
        shown = sum(o.outcome == "cancels" for o in record.outcomes)
        if record.cancelled > shown:
            typer.echo(
                f"It cancelled {record.cancelled:,} runs, of which the first {shown} are shown."
            )
