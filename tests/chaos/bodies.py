"""What the functions under test are made of: steps whose bodies tell the witness, and results made of what the steps returned."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from stepwell import Backoff, Context, ContextSync, Retries, TriggerEvent
from tests.chaos import witness

APP: Final = "chaos"
QUICK: Final = Retries(attempts=4, backoff=Backoff.constant(30))
LONG: Final = "1h"

Made = dict[str, Any]


def work(ctx: Context | ContextSync, step: str, value: Any) -> Made:
    """The body of every step: a line for the witness, and a result that carries its nonce."""
    return {"v": value, "n": witness.ran(ctx.run_id, step, ctx.attempt)}


def body(ctx: Context, step: str, value: Any) -> Callable[[], Awaitable[Made]]:
    """The same as a coroutine function without arguments."""

    async def call() -> Made:
        made = work(ctx, step, value)
        # A step of no length is never interrupted.
        await asyncio.sleep(ctx.event.data.get("ms", 0) / 1000)
        witness.done(ctx.run_id, step, ctx.attempt, made["n"])
        return made

    return call


def out(*made: Made) -> Made:
    """What a run returns: its steps' values, and the nonces of the executions that gave them."""
    return {"v": [m["v"] for m in made], "n": [m["n"] for m in made]}


def on(name: str) -> TriggerEvent:
    """The trigger of the function that an event is named after."""
    return TriggerEvent(event=f"chaos/{name}")
