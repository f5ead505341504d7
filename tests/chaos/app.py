"""The functions under test. Each step's body tells the witness before it returns; what a run returns is made of its steps' results."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import stepwell
from stepwell import Backoff, Context, ContextSync, Event, NonRetriableError, Retries, TriggerEvent
from tests.chaos import witness

APP: Final = "chaos"
QUICK: Final = Retries(attempts=4, backoff=Backoff.constant(30))
LONG: Final = "1h"

Made = dict[str, Any]


def make_client(url: str, namespace: str, shards: int) -> stepwell.Client:
    """The app of all chaos tests."""
    client = stepwell.Client(
        app_id=APP, redis_url=url, namespace=namespace, shards=shards, send_timeout="3s"
    )
    for define in (_plain, _waiting, _parallel, _families, _troubled):
        define(client)
    return client


def work(ctx: Context | ContextSync, step: str, value: Any) -> Made:
    """The body of every step: a line for the witness, and a result that carries its nonce."""
    return {"v": value, "n": witness.ran(ctx.run_id, step, ctx.attempt)}


def body(ctx: Context, step: str, value: Any) -> Callable[[], Awaitable[Made]]:
    """The same as a coroutine function without arguments."""

    async def call() -> Made:
        made = work(ctx, step, value)
        # A step of no length is never interrupted.
        await asyncio.sleep(ctx.event.data.get("ms", 0) / 1000)
        return made

    return call


def out(*made: Made) -> Made:
    """What a run returns: its steps' values, and the nonces of the executions that gave them."""
    return {"v": [m["v"] for m in made], "n": [m["n"] for m in made]}


def _on(name: str) -> TriggerEvent:
    return TriggerEvent(event=f"chaos/{name}")


def _plain(client: stepwell.Client) -> None:
    @client.create_function(fn_id="steps", trigger=_on("steps"), retries=QUICK)
    async def steps(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        b = await ctx.step.run("b", body(ctx, "b", a["v"] + 1))
        c = await ctx.step.run("c", body(ctx, "c", b["v"] + 1))
        return out(a, b, c)

    @client.create_function(fn_id="blocking", trigger=_on("blocking"), retries=QUICK)
    def blocking(ctx: ContextSync) -> Made:
        witness.entered(ctx.run_id)
        a = ctx.step.run("a", lambda: work(ctx, "a", 1))
        ctx.step.sleep("nap", 40)
        b = ctx.step.run("b", lambda: work(ctx, "b", a["v"] + 1))
        return out(a, b)

    @client.create_function(fn_id="sleeper", trigger=_on("sleeper"), retries=QUICK)
    async def sleeper(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        await ctx.step.sleep("nap", 60)
        b = await ctx.step.run("b", body(ctx, "b", a["v"] + 1))
        return out(a, b)


def _waiting(client: stepwell.Client) -> None:
    @client.create_function(fn_id="waiter", trigger=_on("waiter"), retries=QUICK)
    async def waiter(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        event = await ctx.step.wait_for_event(
            "go", event="chaos/go", match="data.key", timeout=LONG
        )
        b = await ctx.step.run("b", body(ctx, "b", event.data["n"] if event else None))
        return out(a, b)

    @client.create_function(fn_id="late", trigger=_on("late"), retries=QUICK)
    async def late(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        event = await ctx.step.wait_for_event("go", event="chaos/never", timeout=80)
        return out(await ctx.step.run("a", body(ctx, "a", event)))

    @client.create_function(fn_id="signalled", trigger=_on("signalled"), retries=QUICK)
    async def signalled(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        value = await ctx.step.wait_for_signal(
            "word", signal=f"word-{ctx.event.data['key']}", timeout=LONG
        )
        return out(await ctx.step.run("a", body(ctx, "a", value)))

    @client.create_function(fn_id="doomed", trigger=_on("doomed"), retries=QUICK)
    async def doomed(ctx: Context) -> None:
        witness.entered(ctx.run_id)
        await ctx.step.run("a", body(ctx, "a", 1))
        await ctx.step.wait_for_event("never", event="chaos/never", timeout=LONG)


def _parallel(client: stepwell.Client) -> None:
    @client.create_function(fn_id="parallel", trigger=_on("parallel"), retries=QUICK)
    async def parallel(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a, b, c = await ctx.group.parallel(
            (
                lambda: ctx.step.run("a", body(ctx, "a", 1)),
                lambda: ctx.step.run("b", body(ctx, "b", 2)),
                lambda: ctx.step.run("c", body(ctx, "c", 3)),
            )
        )
        return out(a, b, c, await ctx.step.run("d", body(ctx, "d", 4)))

    @client.create_function(fn_id="spread", trigger=_on("spread"), retries=QUICK, distribute=True)
    async def spread(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a, b, c = await ctx.group.parallel(
            (
                lambda: ctx.step.run("a", body(ctx, "a", 1)),
                lambda: ctx.step.run("b", body(ctx, "b", 2)),
                lambda: ctx.step.run("c", body(ctx, "c", 3)),
            )
        )
        return out(a, b, c, await ctx.step.run("d", body(ctx, "d", 4)))

    @client.create_function(fn_id="race", trigger=_on("race"), retries=QUICK)
    async def race(ctx: Context) -> Made:
        witness.entered(ctx.run_id)

        async def slow() -> Made:
            await ctx.step.sleep("slow", LONG)
            return {"v": "slow", "n": "-"}

        async def quick() -> Made:
            await ctx.step.sleep("quick", 30)
            return await ctx.step.run("a", body(ctx, "a", "quick"))

        won = await ctx.group.race(slow, quick)
        return out(won, await ctx.step.run("b", body(ctx, "b", 2)))


def _families(client: stepwell.Client) -> None:
    @client.create_function(fn_id="child", retries=QUICK)
    async def child(ctx: Context) -> int:
        witness.entered(ctx.run_id)
        made = await ctx.step.run("a", body(ctx, "a", ctx.event.data["x"] * 2))
        value: int = made["v"]
        return value

    @client.create_function(fn_id="parent", trigger=_on("parent"), retries=QUICK)
    async def parent(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        doubled = await ctx.step.invoke("child", function=child, data={"x": 21})
        return out(a, await ctx.step.run("b", body(ctx, "b", doubled)))

    @client.create_function(fn_id="leaf", trigger=_on("leaf"), retries=QUICK)
    async def leaf(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        return out(await ctx.step.run("a", body(ctx, "a", ctx.event.data["x"])))

    @client.create_function(fn_id="sender", trigger=_on("sender"), retries=QUICK)
    async def sender(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        key = ctx.event.data["key"]
        leaves = [Event(name="chaos/leaf", data={"key": key, "x": x}) for x in (7, 8)]
        ids = await ctx.step.send_event("leaves", leaves)
        return {**out(a, await ctx.step.run("b", body(ctx, "b", 2))), "ids": ids}


def _troubled(client: stepwell.Client) -> None:
    @client.create_function(fn_id="retried", trigger=_on("retried"), retries=QUICK)
    async def retried(ctx: Context) -> Made:
        witness.entered(ctx.run_id)

        async def flaky() -> Made:
            made = work(ctx, "a", ctx.attempt)
            if ctx.attempt < 2:
                raise RuntimeError(f"attempt {ctx.attempt}")
            return made

        a = await ctx.step.run("a", flaky)
        return out(a, await ctx.step.run("b", body(ctx, "b", 2)))

    async def mourn(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        return out(await ctx.step.run("a", body(ctx, "a", ctx.event.data["error"]["message"])))

    @client.create_function(
        fn_id="failing", trigger=_on("failing"), retries=QUICK, on_failure=mourn
    )
    async def failing(ctx: Context) -> None:
        witness.entered(ctx.run_id)
        await ctx.step.run("a", body(ctx, "a", 1))
        raise NonRetriableError("as it should")

    @client.create_function(fn_id="killer", trigger=_on("killer"), retries=QUICK, max_crashes=3)
    async def killer(ctx: Context) -> None:
        witness.entered(ctx.run_id)
        await ctx.step.run("innocent", body(ctx, "innocent", 1))

        async def kill() -> None:
            work(ctx, "guilty", 1)
            os._exit(1)

        await ctx.step.run("guilty", kill)
