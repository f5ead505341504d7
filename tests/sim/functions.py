"""The functions that play a program for real: it comes in their event's data."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from stepwell.checkpointing import Checkpointing
from stepwell.client import Client
from stepwell.errors import NonRetriableError, RetryAfterError, StepError
from stepwell.triggers import TriggerEvent
from tests.sim.program import AGAIN, ATTEMPTS, Op

Called = Callable[[str, str], None]
"""Told (key of the run, path of the step) when a callback is called."""


def _minutes(n: int) -> timedelta:
    return timedelta(minutes=n)


def _callback(called: Called, ctx: Any, op: Op, path: str) -> Callable[[], str]:
    def call() -> str:
        called(ctx.event.data["key"], path)
        if ctx.attempt >= op["fails"]:
            return path
        if op["final"]:
            raise NonRetriableError("for good")
        raise RetryAfterError("again", _minutes(AGAIN))

    return call


def _wanted(op: Op) -> str:
    same = "event.data.key == async.data.key"
    return same if op["n"] is None else f"{same} && async.data.n == {op['n']}"


def _child(ctx: Any, op: Op, path: str) -> dict[str, Any]:
    return {
        "key": ctx.event.data["key"],
        "ops": op["ops"],
        "path": f"{path}.child.",
        "fatal": op["fatal"],
    }


class Async:
    """Plays in an async function."""

    def __init__(self, ctx: Any, called: Called) -> None:
        self.ctx = ctx
        self.called = called

    async def ops(self, ops: list[Op], path: str) -> list[Any]:
        """Play operations in turn."""
        return [await self._op(op, f"{path}{index}") for index, op in enumerate(ops)]

    async def _op(self, op: Op, path: str) -> Any:
        ctx, step = self.ctx, self.ctx.step
        match op["do"]:
            case "run":
                try:
                    return await step.run(path, _callback(self.called, ctx, op, path))
                except StepError:
                    return "failed"
            case "sleep":
                return await step.sleep(path, _minutes(op["for"]))
            case "wait":
                timeout = _minutes(op["for"])
                found = await step.wait_for_event(
                    path, event=op["name"], if_exp=_wanted(op), timeout=timeout
                )
                return found and found.data["at"]
            case "parallel":
                branches = [
                    lambda n=n, branch=branch: self.ops(branch, f"{path}.{n}.")
                    for n, branch in enumerate(op["branches"])
                ]
                return list(await ctx.group.parallel(tuple(branches)))
            case _:
                try:
                    return await step.invoke_by_id(
                        path, function_id="child", data=_child(ctx, op, path)
                    )
                except StepError:
                    return "child failed"


class Sync:
    """Plays in a sync function."""

    def __init__(self, ctx: Any, called: Called) -> None:
        self.ctx = ctx
        self.called = called

    def ops(self, ops: list[Op], path: str) -> list[Any]:
        """Play operations in turn."""
        return [self._op(op, f"{path}{index}") for index, op in enumerate(ops)]

    def _op(self, op: Op, path: str) -> Any:
        ctx, step = self.ctx, self.ctx.step
        match op["do"]:
            case "run":
                try:
                    return step.run(path, _callback(self.called, ctx, op, path))
                except StepError:
                    return "failed"
            case "sleep":
                return step.sleep(path, _minutes(op["for"]))
            case "wait":
                timeout = _minutes(op["for"])
                found = step.wait_for_event(
                    path, event=op["name"], if_exp=_wanted(op), timeout=timeout
                )
                return found and found.data["at"]
            case "parallel":
                branches = [
                    lambda n=n, branch=branch: self.ops(branch, f"{path}.{n}.")
                    for n, branch in enumerate(op["branches"])
                ]
                return list(ctx.group.parallel(tuple(branches)))
            case _:
                try:
                    return step.invoke_by_id(path, function_id="child", data=_child(ctx, op, path))
                except StepError:
                    return "child failed"


def make_client(called: Called) -> Client:
    """An app with a function of each kind, and the one that they invoke."""
    client = Client(app_id="sim")
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "buffered": {"checkpointing": Checkpointing(buffered_steps=5)},
        "spread": {"distribute": True},
    }

    async def play(ctx: Any) -> Any:
        return await Async(ctx, called).ops(ctx.event.data["ops"], "")

    def play_sync(ctx: Any) -> Any:
        return Sync(ctx, called).ops(ctx.event.data["ops"], "")

    async def child(ctx: Any) -> Any:
        data = ctx.event.data
        results = await Async(ctx, called).ops(data["ops"], data["path"])
        if data["fatal"]:
            raise NonRetriableError("for good")
        return results

    retries = ATTEMPTS - 1
    for fn, more in options.items():
        client.create_function(
            fn_id=fn, trigger=TriggerEvent(f"sim/{fn}"), retries=retries, **more
        )(play)
    client.create_function(fn_id="sync", trigger=TriggerEvent("sim/sync"), retries=retries)(
        play_sync
    )
    client.create_function(fn_id="child", retries=retries)(child)
    return client
