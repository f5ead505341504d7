"""The options that several commands share, each declared once."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Annotated

import typer

from stepwell.errors import ConfigError, DurationError

NAMESPACE_ENV = "STEPWELL_NAMESPACE"
SHARDS_ENV = "STEPWELL_SHARDS"
URL_ENV = "STEPWELL_REDIS_URL"

_GROUP = "Server"

Url = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        metavar="URL",
        help="Where the server is (STEPWELL_REDIS_URL); default redis://localhost:6379/0.",
        rich_help_panel=_GROUP,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        envvar=NAMESPACE_ENV,
        metavar="NAME",
        help='The namespace; default "stepwell".',
        rich_help_panel=_GROUP,
    ),
]
Shards = Annotated[
    int | None,
    typer.Option(
        envvar=SHARDS_ENV,
        min=1,
        metavar="N",
        help="Shards of a new namespace (1); checked against an existing one.",
        rich_help_panel=_GROUP,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0, max=65_535, metavar="PORT", help="Serve /metrics, /healthz and /readyz here."
    ),
]
LogLevel = Annotated[
    str, typer.Option(envvar="STEPWELL_LOG_LEVEL", help="debug, info, warning or error.")
]


@contextmanager
def named(call: str, arguments: Mapping[str, str]) -> Generator[None]:
    """Errors about arguments of the client's `call` name the command's options instead: `arguments` says which stands for which."""
    try:
        yield
    except (ConfigError, DurationError) as error:
        text = str(error)
        for argument, option in arguments.items():
            text = text.replace(f"{call}({argument}=)", option)
        raise ConfigError(text) from error
