"""`stepwell worker`: processes that run the functions of an app."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stepwell.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.client import Client

TARGET_HELP: Final = "The client(s): shop.jobs:client, or shop/jobs.py:client"
KILL_MARGIN: Final = 10.0
"""Seconds a process has beyond its drain before it is killed."""

Target = Annotated[str, typer.Argument(metavar="TARGET", help=TARGET_HELP)]
Concurrency = Annotated[int, typer.Option(min=1, help="Runs at once in each process.")]


def worker(
    target: Target,
    concurrency: Concurrency = 100,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    shards: options.Shards = None,
    metrics_port: options.MetricsPort = None,
    drain: Annotated[
        str, typer.Option(metavar="TIME", help="How long steps may take to end after SIGTERM.")
    ] = "30s",
    log_level: options.LogLevel = "info",
) -> None:
    """Run the functions of TARGET until SIGTERM, which drains; a second one releases the work.

    With --processes, each serves metrics on a port of its own: PORT, PORT+1 and so on.
    """
    from stepwell.cli.logs import configure
    from stepwell.durations import parse_duration

    configure(log_level)
    grace = parse_duration(drain, argument="--drain") / 1000
    if processes > 1:
        raise typer.Exit(_pool(sys.argv[1:], processes, grace))
    clients = prepare(target, redis_url, namespace, shards)
    _serve(clients, concurrency, _port(metrics_port), grace)


def prepare(
    target: str, url: str | None, namespace: str | None, shards: int | None
) -> "list[Client]":
    """The clients of `target`, with the server of the command line. Raises ConfigError."""
    from stepwell.errors import ConfigError
    from stepwell_workers.loader import load

    if url is not None:
        os.environ[options.URL_ENV] = url  # clients read it when they connect
    clients = load(target)
    for client in clients:
        if url is not None and client.redis_url != url:
            raise ConfigError(
                f"--redis-url is {url}, but the client {client.app_id!r} was made with "
                f"redis_url={client.redis_url!r}: leave one of them out"
            )
        # What its functions send has to arrive where the worker is.
        client.namespace = namespace or client.namespace
        client.shards = shards or client.shards
    return clients


def _pool(arguments: "Sequence[str]", processes: int, grace: float) -> int:
    """This same command, `processes` times, each with one process."""
    from stepwell_workers.pool import Pool
    from stepwell_workers.uv import run

    command = [sys.executable, "-m", "stepwell.cli", *arguments, "--processes", "1"]
    return run(Pool(command, processes, kill_after=grace + KILL_MARGIN).run())


def _port(port: int | None) -> int | None:
    from stepwell_workers.child import process_index

    return port and port + process_index()


def _serve(
    clients: "list[Client]", concurrency: int, metrics_port: int | None, grace: float
) -> None:
    from stepwell_workers.serve import serve
    from stepwell_workers.uv import run
    from stepwell_workers.worker import Worker

    run(serve(Worker(clients, concurrency=concurrency), drain=grace, metrics_port=metrics_port))
    # Threads of user code that would not end must not keep the process: what they do is fenced off.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
