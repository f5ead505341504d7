"""`stepwell dev`: server, coordinator and a worker with reload, in one command."""

import asyncio
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stepwell.cli import options
from stepwell.cli.worker import Concurrency, Target

if TYPE_CHECKING:
    from stepwell_engine.embedded import EmbeddedServer

FOLDER: Final = ".stepwell"
PORT: Final = 6390
"""Tried first, so that a URL once copied goes on working; not Redis's own, which may be in use."""

_LOOK: Final = 0.5

logger = logging.getLogger("stepwell.dev")


def dev(
    target: Target,
    concurrency: Concurrency = 100,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The embedded server's port; 0 takes any.")
    ] = 0,
    data: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where state is kept between starts.")
    ] = Path(FOLDER),
    namespace: options.Namespace = None,
    shards: options.Shards = None,
    metrics_port: options.MetricsPort = None,
    log_level: options.LogLevel = "info",
) -> None:
    """Run everything TARGET needs: an embedded server, a coordinator, a worker that reloads.

    State survives restarts; remove the folder to start afresh.
    """
    from stepwell.cli.connect import NAMESPACE
    from stepwell.cli.logs import configure
    from stepwell_workers.loader import source_folder

    configure(log_level)
    logging.getLogger("stepwell.coordinator").setLevel(logging.WARNING)
    folder = source_folder(target)
    with ExitStack() as stack:
        stack.enter_context(lock(data))
        server = start_server(data, port)
        stack.callback(server.stop)
        os.environ[options.URL_ENV] = server.url
        space = namespace or NAMESPACE
        _welcome(server.url, space, data)
        asyncio.run(
            _serve(
                server,
                space,
                shards,
                _command(target, concurrency, namespace, shards, log_level),
                folder,
                metrics_port,
            )
        )


def _command(
    target: str, concurrency: int, namespace: str | None, shards: int | None, log_level: str
) -> list[str]:
    command = [sys.executable, "-m", "stepwell.cli", "worker", target]
    command += ["--concurrency", str(concurrency), "--drain", "2s", "--log-level", log_level]
    command += ["--namespace", namespace] if namespace else []
    return [*command, "--shards", str(shards)] if shards else command


def start_server(data: Path, port: int) -> "EmbeddedServer":
    """The embedded server on the port of last time, the usual one or a free one. EmbeddedServerError."""
    from stepwell_engine.embedded import EmbeddedServer, EmbeddedServerError

    remembered = data / "port"
    tries = [port] if port else [_remembered(remembered), PORT, None]
    for index, each in enumerate(tries):
        try:
            server = EmbeddedServer(
                directory=(data / "server").resolve(), port=each, appendonly=True
            )
        except EmbeddedServerError as error:
            if "in use" not in str(error).lower() or index == len(tries) - 1:
                raise
        else:
            remembered.write_text(str(server.port))
            return server
    raise AssertionError("unreachable: the last try returns or raises")


def _remembered(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return PORT


def lock(data: Path) -> ExitStack:
    """Hold the folder: two servers on one append-only file would ruin it. Raises ConfigError."""
    import fcntl

    from stepwell.errors import ConfigError

    data.mkdir(parents=True, exist_ok=True)
    ignore = data / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    stack = ExitStack()
    file = stack.enter_context((data / "lock").open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stack.close()
        raise ConfigError(
            f"{data} is in use by another stepwell dev; stop that one, or give --data a folder"
        ) from None
    return stack


def _welcome(url: str, namespace: str, data: Path) -> None:
    space = "" if namespace == "stepwell" else f" STEPWELL_NAMESPACE={namespace}"
    typer.secho("\n  Stepwell dev", bold=True)
    typer.echo(f"  server   {url}   (state in {data}/)")
    typer.echo(f"  connect  export STEPWELL_REDIS_URL={url}{space}")
    typer.echo("""  send     stepwell send shop/order.created '{"id": "A-1001"}'""")
    typer.echo("  look     stepwell runs list\n")


async def _serve(
    server: "EmbeddedServer",
    namespace: str,
    shards: int | None,
    command: list[str],
    folder: Path,
    metrics_port: int | None,
) -> None:
    from stepwell_engine.coordinator import Coordinator
    from stepwell_engine.health import Health
    from stepwell_engine.store.store import Store
    from stepwell_workers.reload import Reloader
    from stepwell_workers.signals import Shutdown

    store = await Store.open(server.url, namespace=namespace, shards=shards, name="stepwell-dev")
    coordinator = Coordinator(store)
    keeper: asyncio.Task[None] | None = None
    try:
        with ExitStack() as stack:
            shutdown = stack.enter_context(Shutdown(logger=logger))
            if metrics_port is not None:
                health = Health(
                    metrics_port,
                    registry=coordinator.metrics.registry,
                    age=lambda: coordinator.age,
                )
                stack.enter_context(health)
            async with coordinator:
                keeper = asyncio.create_task(_keep(server))
                await Reloader(command, [folder]).run(shutdown)
    finally:
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await store.aclose()


async def _keep(server: "EmbeddedServer") -> None:
    """A server that was killed starts again, from its append-only file."""
    while True:
        await asyncio.sleep(_LOOK)
        if not server.running:
            logger.warning("the server ended; starting it again")
            await asyncio.to_thread(server.restart)
