"""The one door from the SDK to the engine, opened on first use only."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.gateway import Gateway, GatewayOptions


def compile_expression(text: str, *, variables: tuple[str, ...] = ("event", "async")) -> None:
    """Check that an expression over `variables` compiles. Raises `stepwell.errors.ExpressionError`."""
    from stepwell_engine import expressions

    expressions.compile(text, variables=variables)


def check_cron(text: str, timezone: str | None) -> None:
    """Check a cron text and its time zone. Raises `stepwell.errors.ConfigError`."""
    from stepwell_engine import cron

    cron.check_cron(text, timezone)


async def open_gateway(options: "GatewayOptions") -> "Gateway":
    """Connect to a namespace. Raises ServerError, ConfigError or NamespaceError."""
    from stepwell_engine.gateway import StoreGateway

    return await StoreGateway.open(options)
