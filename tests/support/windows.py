"""Functions for tests of debounces and batches."""

from stepwell.client import Client
from stepwell.context import Context
from stepwell.triggers import TriggerEvent

GO = TriggerEvent("t/go")


def counting(client: Client, **options: object) -> None:
    """A function that returns how many events its run has."""

    async def f(ctx: Context) -> int:
        return len(ctx.events)

    client.create_function(fn_id="f", trigger=GO, **options)(f)  # type: ignore[arg-type]  # any option
