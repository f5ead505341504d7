"""`stepwell coordinator`: a process that moves events to runs and keeps their time."""

from typing import Annotated

import typer

from stepwell.cli import options


def coordinator(
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    shards: options.Shards = None,
    retention: Annotated[
        str, typer.Option(metavar="TIME", help="How long ended runs are kept; at least 1m.")
    ] = "7d",
    metrics_port: options.MetricsPort = None,
    log_level: options.LogLevel = "info",
) -> None:
    """Run a coordinator until SIGTERM. Any number may run; two of them survive the loss of one."""
    from stepwell.cli.connect import NAMESPACE
    from stepwell.cli.logs import configure
    from stepwell.client import Client
    from stepwell_engine.serve import CoordinatorOptions, serve
    from stepwell_workers.child import watch_parent
    from stepwell_workers.uv import run

    configure(log_level)
    watch_parent()
    client = Client(
        app_id="coordinator",
        redis_url=redis_url,
        namespace=namespace or NAMESPACE,
        shards=shards,
    )
    run(
        serve(
            CoordinatorOptions(
                url=client.redis_url,
                namespace=client.namespace,
                shards=client.shards,
                retention=retention,
                metrics_port=metrics_port,
            )
        )
    )
