"""`stepwell runs`: list, show, cancel."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell.cli import options, output
from stepwell.cli.connect import ask
from stepwell.errors import StepwellError

if TYPE_CHECKING:
    from stepwell.client import Client
    from stepwell.records import RunSummary

app = typer.Typer(no_args_is_help=True, help="Look at runs, cancel them.")

_COLUMNS = ("RUN", "FUNCTION", "STATUS", "EVENT", "CREATED", "TOOK", "ERROR")


@app.callback()
def runs() -> None:
    """Look at runs, cancel them."""


@app.command("list")
def list_(
    fn: Annotated[str | None, typer.Option(help="Only of this function (its local id).")] = None,
    app_id: Annotated[str | None, typer.Option("--app", help="Only of this app.")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="queued, scheduled, running, waiting, cancelling, completed, failed or cancelled."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a list ended.")] = None,
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """List runs, newest first."""
    page = ask(
        lambda client: client.list_runs(
            fn_id=fn, app_id=app_id, status=status, limit=limit, cursor=cursor
        ),
        redis_url,
        namespace,
    )
    if as_json:
        output.print_json({"runs": [summary(each) for each in page.items], "cursor": page.cursor})
        return
    output.print_rows(_COLUMNS, map(_row, page.items), "No runs.")
    if page.cursor:
        typer.echo(f"There may be more: --cursor {page.cursor}")


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id.")],
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Show a run: its steps, attempts, stays with workers and errors, as a timeline."""
    from stepwell.cli.timeline import render

    run = ask(lambda client: client.get_run(run_id), redis_url, namespace)
    if as_json:
        output.print_json({**output.plain(run), "function_id": run.function_id})
    else:
        output.console().print(render(run))


@app.command()
def cancel(
    run_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The runs' ids.")],
    reason: Annotated[str | None, typer.Option(help="Recorded with the run.")] = None,
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Cancel runs. One that has ended stays as it is."""
    done = ask(lambda client: _cancel(client, run_ids, reason), redis_url, namespace)
    if as_json:
        output.print_json({"runs": done})
    else:
        rows = [(d["id"], d["status"], d["error"] or "") for d in done]
        output.print_rows(("RUN", "STATUS", "ERROR"), rows, "")
    if any(d["error"] for d in done):
        raise typer.Exit(1)


async def _cancel(client: "Client", ids: list[str], reason: str | None) -> list[dict[str, Any]]:
    done: list[dict[str, Any]] = []
    for run_id in dict.fromkeys(ids):
        try:
            status = str(await client.cancel_run(run_id, reason=reason))
            done.append({"id": run_id, "status": status, "error": None})
        except StepwellError as error:
            # The others are still cancelled: each has its own line.
            done.append({"id": run_id, "status": "", "error": str(error)})
    return done


def summary(run: "RunSummary") -> dict[str, Any]:
    """A run in short, as JSON types."""
    return {**output.plain(run), "function_id": run.function_id}


def _row(run: "RunSummary") -> tuple[str, ...]:
    return (
        run.id,
        f"{run.app_id}/{run.fn_id}",
        str(run.status),
        run.event_name,
        output.moment(run.created_at),
        output.duration(run.started_at, run.ended_at),
        str(run.error or "").partition("\n")[0],
    )
