"""The functions under test. Each step's body tells the witness before it returns; what a run returns is made of its steps' results."""

import os

import stepwell
from stepwell import Context, ContextSync, Event, NonRetriableError
from tests.chaos import witness
from tests.chaos.bodies import APP, LONG, QUICK, Made, body, on, out, work
from tests.chaos.flow_app import define_flow


def make_client(url: str, namespace: str, shards: int) -> stepwell.Client:
    """The app of all chaos tests."""
    client = stepwell.Client(
        app_id=APP, redis_url=url, namespace=namespace, shards=shards, send_timeout="3s"
    )
    for define in (_plain, _waiting, _parallel, _families, _troubled, define_flow):
        define(client)
    return client


def _plain(client: stepwell.Client) -> None:
    @client.create_function(fn_id="steps", trigger=on("steps"), retries=QUICK)
    async def steps(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        b = await ctx.step.run("b", body(ctx, "b", a["v"] + 1))
        c = await ctx.step.run("c", body(ctx, "c", b["v"] + 1))
        return out(a, b, c)

    @client.create_function(fn_id="blocking", trigger=on("blocking"), retries=QUICK)
    def blocking(ctx: ContextSync) -> Made:
        witness.entered(ctx.run_id)
        a = ctx.step.run("a", lambda: work(ctx, "a", 1))
        ctx.step.sleep("nap", 40)
        b = ctx.step.run("b", lambda: work(ctx, "b", a["v"] + 1))
        return out(a, b)

    @client.create_function(fn_id="sleeper", trigger=on("sleeper"), retries=QUICK)
    async def sleeper(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        await ctx.step.sleep("nap", 60)
        b = await ctx.step.run("b", body(ctx, "b", a["v"] + 1))
        return out(a, b)


def _waiting(client: stepwell.Client) -> None:
    @client.create_function(fn_id="waiter", trigger=on("waiter"), retries=QUICK)
    async def waiter(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        event = await ctx.step.wait_for_event(
            "go", event="chaos/go", match="data.key", timeout=LONG
        )
        b = await ctx.step.run("b", body(ctx, "b", event.data["n"] if event else None))
        return out(a, b)

    @client.create_function(fn_id="late", trigger=on("late"), retries=QUICK)
    async def late(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        event = await ctx.step.wait_for_event("go", event="chaos/never", timeout=80)
        return out(await ctx.step.run("a", body(ctx, "a", event)))

    @client.create_function(fn_id="signalled", trigger=on("signalled"), retries=QUICK)
    async def signalled(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        value = await ctx.step.wait_for_signal(
            "word", signal=f"word-{ctx.event.data['key']}", timeout=LONG
        )
        return out(await ctx.step.run("a", body(ctx, "a", value)))

    @client.create_function(fn_id="doomed", trigger=on("doomed"), retries=QUICK)
    async def doomed(ctx: Context) -> None:
        witness.entered(ctx.run_id)
        await ctx.step.run("a", body(ctx, "a", 1))
        await ctx.step.wait_for_event("never", event="chaos/never", timeout=LONG)


def _parallel(client: stepwell.Client) -> None:
    @client.create_function(fn_id="parallel", trigger=on("parallel"), retries=QUICK)
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

    @client.create_function(fn_id="spread", trigger=on("spread"), retries=QUICK, distribute=True)
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

    @client.create_function(fn_id="race", trigger=on("race"), retries=QUICK)
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

    @client.create_function(fn_id="parent", trigger=on("parent"), retries=QUICK)
    async def parent(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        doubled = await ctx.step.invoke("child", function=child, data={"x": 21})
        return out(a, await ctx.step.run("b", body(ctx, "b", doubled)))

    @client.create_function(fn_id="leaf", trigger=on("leaf"), retries=QUICK)
    async def leaf(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        return out(await ctx.step.run("a", body(ctx, "a", ctx.event.data["x"])))

    @client.create_function(fn_id="sender", trigger=on("sender"), retries=QUICK)
    async def sender(ctx: Context) -> Made:
        witness.entered(ctx.run_id)
        a = await ctx.step.run("a", body(ctx, "a", 1))
        key = ctx.event.data["key"]
        leaves = [Event(name="chaos/leaf", data={"key": key, "x": x}) for x in (7, 8)]
        ids = await ctx.step.send_event("leaves", leaves)
        return {**out(a, await ctx.step.run("b", body(ctx, "b", 2))), "ids": ids}


def _troubled(client: stepwell.Client) -> None:
    @client.create_function(fn_id="retried", trigger=on("retried"), retries=QUICK)
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

    @client.create_function(fn_id="failing", trigger=on("failing"), retries=QUICK, on_failure=mourn)
    async def failing(ctx: Context) -> None:
        witness.entered(ctx.run_id)
        await ctx.step.run("a", body(ctx, "a", 1))
        raise NonRetriableError("as it should")

    @client.create_function(fn_id="killer", trigger=on("killer"), retries=QUICK, max_crashes=3)
    async def killer(ctx: Context) -> None:
        witness.entered(ctx.run_id)
        await ctx.step.run("innocent", body(ctx, "innocent", 1))

        async def kill() -> None:
            work(ctx, "guilty", 1)
            os._exit(1)

        await ctx.step.run("guilty", kill)
