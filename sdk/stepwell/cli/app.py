"""The commands put together, and what an error comes to: one line and an exit code."""

import os
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from stepwell.errors import ConfigError, DurationError, EventInvalidError, StepwellError

CONFIG_EXIT: Final = 2
"""What was asked for can't be done as it was written; trying again can't help."""

DEBUG: Final = "STEPWELL_DEBUG"


class Commands(TyperGroup):
    """Turns a StepwellError into `Error: ...` on stderr; `--debug` lets it through."""

    # Any: typer's context is click's or its own copy of it, by its version.
    def invoke(self, ctx: Any) -> Any:
        """Run the command. Exits with 2 for what was written wrongly, 1 for other errors."""
        try:
            return super().invoke(ctx)
        except StepwellError as error:
            if os.environ.get(DEBUG):
                raise
            typer.secho(f"Error: {error}", fg="red", err=True)
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def exit_code(error: StepwellError) -> int:
    """2 if what the user wrote is wrong, else 1."""
    # ServerUrlError is the engine's, which is not imported for this.
    wrong = isinstance(error, (ConfigError, DurationError, EventInvalidError))
    return CONFIG_EXIT if wrong or type(error).__name__ == "ServerUrlError" else 1


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Durable functions on Redis: run them, feed them, look at them.",
    epilog="STEPWELL_REDIS_URL, STEPWELL_NAMESPACE and STEPWELL_SHARDS stand in for the options.",
)


@app.callback()
def root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", envvar=DEBUG)
    ] = False,
) -> None:
    """Durable functions on Redis: run them, feed them, look at them."""
    if debug:
        os.environ[DEBUG] = "1"  # for child processes too


def _assemble() -> None:
    from stepwell.cli import (
        coordinator,
        cron,
        dev,
        doctor,
        events,
        functions,
        runs,
        send,
        version,
        worker,
    )

    for needing in (dev.dev, worker.worker, send.send):
        app.command(no_args_is_help=True)(needing)
    app.command()(coordinator.coordinator)
    app.add_typer(events.app, name="events")
    app.add_typer(runs.app, name="runs")
    app.add_typer(functions.app, name="functions")
    for free in (cron.cron, doctor.doctor, version.version):
        app.command()(free)


_assemble()
