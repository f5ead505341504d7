"""Functions with flow control, under test. `g` of an event's data is the key of every option: those of one drive, or of many."""

from typing import Any, Final

import stepwell
from stepwell import Context, TriggerCron, TriggerEvent
from stepwell.flow import (
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    Priority,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
)
from tests.chaos import witness
from tests.chaos.bodies import QUICK, Made, body, on, out

KEY: Final = "event.data.g"
HELD: Final = "20s"
"""How long a run waits for the event that lets it go on: longer than any drive needs."""

ONE: Final = Concurrency(limit=1, key=KEY)
ONE_RUN: Final = Concurrency(limit=1, key=KEY, level="run")
SHARED: Final = Concurrency(limit=1, key=KEY, scope="env")

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "keyed": {"concurrency": ONE},
    "held": {"concurrency": ONE_RUN},
    "throttled": {"throttle": Throttle(limit=2, period="1s", key=KEY)},
    "rated": {"rate_limit": RateLimit(limit=1, period="1h", key=KEY)},
    "once": {"idempotency": KEY},
    "bounced": {"debounce": Debounce(period="1s", key=KEY)},
    "collected": {"debounce": Debounce(period="1s", key=KEY, collect=True)},
    "sized": {"batch_events": Batch(max_size=2, timeout="4s", key=KEY)},
    "timed": {"batch_events": Batch(max_size=10, timeout="1s", key=KEY)},
    "single": {"singleton": Singleton(mode="skip", key=KEY)},
    "replaced": {"singleton": Singleton(mode="cancel", key=KEY)},
    "stopped": {"cancel": Cancel(event="chaos/stop", match="data.g")},
    "tardy": {"concurrency": ONE_RUN, "timeouts": Timeouts(start="1s")},
    "overdue": {"timeouts": Timeouts(finish="1s")},
    "ranked": {"concurrency": ONE_RUN, "priority": Priority(run="event.data.rank")},
    "shared-a": {"concurrency": SHARED},
    "shared-b": {"concurrency": SHARED},
    # Many events of few keys, for storms.
    "crowd": {"concurrency": (Concurrency(limit=3, key=KEY), Concurrency(limit=8))},
    "gush": {"throttle": Throttle(limit=5, period="1s", burst=3, key=KEY)},
    "lone": {"singleton": Singleton(mode="skip", key=KEY)},
    "heap": {"batch_events": Batch(max_size=5, timeout="1s", key=KEY)},
}
"""The options of each function."""

WAITING: Final = frozenset({"single", "replaced", "stopped", "tardy", "overdue", "ranked"})
"""Functions that wait for `chaos/release` of their `g`, but for events that say `free`."""

TRIGGERS: Final[dict[str, tuple[str, ...]]] = {
    **{f"chaos/{fn}": (fn,) for fn in OPTIONS if not fn.startswith("shared-")},
    "chaos/shared": ("shared-a", "shared-b"),
    "chaos/release": (),
    "chaos/stop": (),
}
"""Which functions an event starts."""

FUNCTIONS: Final = frozenset({*OPTIONS, "yearly", "told"})
"""Those whose runs flow_oracle.py judges."""

YEARLY: Final = "0 0 1 1 *"


def define_flow(client: stepwell.Client) -> None:
    """All of them."""
    for fn in OPTIONS:
        _define(client, fn)

    @client.create_function(
        fn_id="yearly", trigger=TriggerCron(cron=YEARLY, catchup="all"), retries=QUICK
    )
    async def yearly(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        return out(await ctx.step.run("a", body(ctx, "a", 1)))

    @client.create_function(
        fn_id="told", trigger=TriggerEvent(event="inngest/function.skipped"), retries=QUICK
    )
    async def told(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        return out(await ctx.step.run("a", body(ctx, "a", 1)))


def _define(client: stepwell.Client, fn: str) -> None:
    trigger = on(fn.partition("-")[0])

    @client.create_function(fn_id=fn, trigger=trigger, retries=QUICK, **OPTIONS[fn])
    async def handler(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        if fn not in WAITING:
            await ctx.step.sleep("nap", 40)
        elif not ctx.event.data.get("free"):
            await ctx.step.wait_for_event("go", event="chaos/release", match="data.g", timeout=HELD)
        b = await ctx.step.run("b", body(ctx, "b", 2))
        keys = [event.data.get("key") for event in ctx.events]
        if fn != "crowd":
            return {**out(a, b), "keys": keys}
        c, d = await ctx.group.parallel(
            (
                lambda: ctx.step.run("c", body(ctx, "c", 3)),
                lambda: ctx.step.run("d", body(ctx, "d", 4)),
            )
        )
        return {**out(a, b, c, d), "keys": keys}
