"""`stepwell runs`: list, show, cancel."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell.cli import options, output
from stepwell.cli.connect import ask
from stepwell.errors import StepwellError

if TYPE_CHECKING:
    from stepwell.client import Client
    from stepwell.client_args import Which
    from stepwell.records import RunSummary

app = typer.Typer(no_args_is_help=True, help="Look at runs, cancel them.")

_COLUMNS = ("RUN", "FUNCTION", "STATUS", "EVENT", "CREATED", "TOOK", "ERROR")


_LISTED = {"fn_id": "--function", "app_id": "--app", "status": "--status", "cursor": "--cursor"}
_CHOSEN = {
    "fn_id": "--function", "app_id": "--app", "status": "--status", "if_exp": "--if",
    "started_after": "--after", "started_before": "--before",
}  # fmt: skip


@app.callback()
def runs() -> None:
    """Look at runs, cancel them."""


@app.command("list")
def list_(
    fn: Annotated[
        str | None,
        typer.Option("--function", "--fn", help="Only of this function (its local id)."),
    ] = None,
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
    with options.named("list_runs", _LISTED):
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
def explain(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id.")],
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Say in one sentence why a run is not running now."""
    found = ask(lambda client: client.explain(run_id), redis_url, namespace)
    if as_json:
        output.print_json(found)
    else:
        typer.echo(str(found))


@app.command()
def cancel(
    run_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="The runs' ids.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Recorded with the run.")] = None,
    children: Annotated[
        bool,
        typer.Option(
            "--children", help="The runs that they invoked and wait (or waited) for, too."
        ),
    ] = False,
    fn: Annotated[
        str | None, typer.Option("--function", "--fn", help="All of this function (its local id).")
    ] = None,
    app_id: Annotated[str | None, typer.Option("--app", help="All of this app.")] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Only queued, scheduled, running, waiting or cancelling ones."),
    ] = None,
    if_exp: Annotated[
        str | None,
        typer.Option("--if", help="Only those for whose event this expression is true."),
    ] = None,
    after: Annotated[str | None, typer.Option(help="Only those created from then on.")] = None,
    before: Annotated[str | None, typer.Option(help="Only those created before then.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most, the newest.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count, of a whole function or app.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Cancel runs: those named, or those of a function or app. One that has ended stays as it is."""
    filters = (fn, app_id, status, if_exp, after, before, limit)
    if run_ids:
        if dry_run or any(given is not None for given in filters):
            raise typer.BadParameter(
                "give either the ids of runs, or which of a --function or --app"
            )
        _cancel_named(run_ids, reason, children, redis_url, namespace, as_json)
        return
    if fn is None and app_id is None:
        raise typer.BadParameter(
            "give the ids of runs, or which of a --function or --app to cancel"
        )
    which: Which = {
        "app_id": app_id, "fn_id": fn, "status": status, "if_exp": if_exp,
        "started_after": after, "started_before": before, "limit": limit,
        "reason": reason, "children": children, "dry_run": True,
    }  # fmt: skip
    with options.named("cancel_runs", _CHOSEN):
        _cancel_found(which, redis_url, namespace, dry_run=dry_run, yes=yes, as_json=as_json)


def _cancel_found(
    which: "Which",
    redis_url: str | None,
    namespace: str | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Cancel the runs that the options describe, after a look at how many there are."""
    if as_json and not (yes or dry_run):
        raise typer.BadParameter("with --json nothing is asked: say --yes or --dry-run as well")
    if not (yes or dry_run):
        found = ask(lambda client: client.cancel_runs(**which), redis_url, namespace)
        if not found.count:
            typer.echo("No runs to cancel.")
            return
        typer.confirm(f"Runs that will be cancelled: {found.count:,}. Go on?", abort=True)
    which["dry_run"] = dry_run
    done = ask(lambda client: client.cancel_runs(**which), redis_url, namespace)
    if as_json:
        output.print_json(done)
    else:
        typer.echo(f"Runs {'that would be ' if dry_run else ''}cancelled: {done.count:,}")


def _cancel_named(
    run_ids: list[str],
    reason: str | None,
    children: bool,
    redis_url: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    done = ask(lambda client: _cancel(client, run_ids, reason, children), redis_url, namespace)
    if as_json:
        output.print_json({"runs": done})
    else:
        rows = [(d["id"], d["status"], d["error"] or "") for d in done]
        output.print_rows(("RUN", "STATUS", "ERROR"), rows, "")
    if any(d["error"] for d in done):
        raise typer.Exit(1)


async def _cancel(
    client: "Client", ids: list[str], reason: str | None, children: bool
) -> list[dict[str, Any]]:
    done: list[dict[str, Any]] = []
    for run_id in dict.fromkeys(ids):
        try:
            status = str(await client.cancel_run(run_id, reason=reason, children=children))
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
