"""`stepwell doctor`: is the server fit, are the processes there, does the data hold together?"""

import typer

from stepwell.cli import options, output
from stepwell.cli.connect import look
from stepwell.clock import SystemClock


def doctor(
    audit: bool = typer.Option(True, help="Check every live key and run; reads them all."),
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    shards: options.Shards = None,
    as_json: options.Json = False,
) -> None:
    """Check the server's settings, the processes and the data. Exits with 1 when something is wrong."""
    from stepwell_engine.doctor import Level, examine

    found = look(
        lambda store: examine(store, SystemClock(), audit=audit), redis_url, namespace, shards
    )
    problems = [each for each in found if each.level is Level.PROBLEM]
    if as_json:
        output.print_json({"ok": not problems, "findings": found})
    else:
        rows = [(str(each.level), each.check, each.text) for each in found]
        output.print_rows(("", "CHECK", "FOUND"), rows, "")
    if problems:
        raise typer.Exit(1)
