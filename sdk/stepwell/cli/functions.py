"""`stepwell functions`: what workers have registered; taking out what the code no longer has."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell.cli import options, output
from stepwell.cli.connect import ask, look
from stepwell.errors import FunctionNotFoundError

if TYPE_CHECKING:
    from stepwell.client import Client, LiveRuns
    from stepwell.records import RemovedFunction
    from stepwell_engine.store.store import Store

app = typer.Typer(help="List the registered functions, remove one.")


@app.callback(invoke_without_command=True)
def functions(
    context: typer.Context,
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """List the registered functions with their triggers and options; `remove` takes one out."""
    if context.invoked_subcommand is not None:
        return
    found = look(_read, redis_url, namespace)
    if as_json:
        output.print_json({"functions": found})
        return
    rows = [
        (
            each["app_id"],
            each["fn_id"],
            ", ".join(_trigger(t) for t in each["triggers"]) or "invoke only",
            str(each["retries"].get("attempts", 1) - 1),
            str(each["shard"]),
            each["app_version"] or "",
        )
        for each in found
    ]
    columns = ("APP", "FUNCTION", "TRIGGERS", "RETRIES", "SHARD", "VERSION")
    output.print_rows(columns, rows, "No worker has registered a function yet.")


@app.command(no_args_is_help=True)
def remove(
    name: Annotated[str, typer.Argument(metavar="APP/FN", help="The function, as app/function.")],
    cancel_runs: Annotated[
        bool, typer.Option("--cancel-runs", help="Cancel its runs that have not ended.")
    ] = False,
    keep_runs: Annotated[
        bool,
        typer.Option("--keep-runs", help="Leave them to workers that still have its code."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """Remove a function that the code no longer has: no event, cron or invoke starts it any more.

    With runs that have not ended it is refused, unless you say what becomes of them. A worker that starts with the function brings it back.
    """
    if cancel_runs and keep_runs:
        raise typer.BadParameter("give either --cancel-runs or --keep-runs")
    if as_json and not yes:
        raise typer.BadParameter("with --json nothing is asked: say --yes as well")
    app_id, fn_id = look(lambda store: _find(store, name), redis_url, namespace)
    if not yes:
        also = " and its live runs are cancelled" if cancel_runs else ""
        typer.confirm(f"Nothing will start {app_id}/{fn_id} any more{also}. Go on?", abort=True)
    runs: LiveRuns = "cancel" if cancel_runs else "keep" if keep_runs else "refuse"

    async def question(client: "Client") -> "RemovedFunction":
        return await client.remove_function(fn_id, app_id=app_id, runs=runs)

    done = ask(question, redis_url, namespace)
    if as_json:
        output.print_json(done)
        return
    typer.echo(f"Removed: {', '.join(f'{app_id}/{each}' for each in done.fn_ids)}")
    if done.cancelled:
        typer.echo(f"Runs cancelled: {done.cancelled:,}")
    if done.left:
        typer.echo(f"Runs left to workers that still have the code: {done.left:,}")


async def _find(store: "Store", name: str) -> tuple[str, str]:
    """App and function of a name. Ids may hold slashes themselves, so it is compared whole."""
    from stepwell_engine.registry import Registry

    registry = Registry(store)
    await registry.refresh()
    every = registry.all(removed=True)
    found = sorted((f.app, f.fn) for f in every if f"{f.app}/{f.fn}" == name)
    if not found:
        raise FunctionNotFoundError(
            f"{name!r}: there is no such function in namespace {store.namespace!r}; write app/function "
            "as `stepwell functions` lists them"
        )
    if len(found) > 1:
        raise FunctionNotFoundError(
            f"{name!r} may be {' and '.join(map(str, found))}; use client.remove_function(fn_id, app_id=)"
        )
    return found[0]


async def _read(store: "Store") -> list[dict[str, Any]]:
    from stepwell_engine.registry import Registry

    registry = Registry(store)
    await registry.refresh()
    found = [{**dict(f.config), "shard": f.shard, "number": f.number} for f in registry.all()]
    return sorted(found, key=lambda each: (each["app_id"], each["fn_id"]))


def _trigger(trigger: dict[str, Any]) -> str:
    if trigger.get("cron"):
        zone = trigger.get("timezone")
        return f"cron {trigger['cron']}" + (f" ({zone})" if zone else "")
    condition = trigger.get("expression")
    return f"{trigger['event']} if {condition}" if condition else str(trigger["event"])
