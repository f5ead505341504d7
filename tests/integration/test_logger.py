"""`ctx.logger` is silent while recorded steps are replayed: each line is written once a run, over any number of entries."""

import logging

import pytest

from stepwell.client import Client
from stepwell.events import Event
from stepwell.triggers import TriggerEvent
from tests.support.runs import run_of

pytestmark = pytest.mark.anyio

_ENTRIES = 4


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.logger = logging.getLogger(f"tests.orders.{id(self)}")
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def lines():
    handler = Lines()
    yield handler
    handler.logger.removeHandler(handler)


@pytest.fixture
def app(lines) -> Client:
    return Client(app_id="shop", logger=lines.logger)


def plain(entered):
    async def handler(ctx):
        entered.append(1)
        ctx.logger.info("began with %s", ctx.event.name)
        await ctx.step.run("one", lambda: 1)
        ctx.logger.warning("after one")
        for n in range(_ENTRIES - 1):
            await ctx.step.sleep(f"nap {n}", "1h")
            ctx.logger.log(logging.INFO, "after nap %d", n)
        await ctx.step.run("two", lambda: 2)
        ctx.logger.error("after two")

    return handler


def plain_sync(entered):
    def handler(ctx):
        entered.append(1)
        ctx.logger.info("began with %s", ctx.event.name)
        ctx.step.run("one", lambda: 1)
        ctx.logger.warning("after one")
        for n in range(_ENTRIES - 1):
            ctx.step.sleep(f"nap {n}", "1h")
            ctx.logger.log(logging.INFO, "after nap %d", n)
        ctx.step.run("two", lambda: 2)
        ctx.logger.error("after two")

    return handler


@pytest.mark.parametrize("make", [plain, plain_sync], ids=["async", "sync"])
async def test_each_line_is_written_once(app, lines, stepwell_engine, make):
    entered: list[int] = []
    app.create_function(fn_id="f", trigger=TriggerEvent("t/go"))(make(entered))
    async with stepwell_engine(app) as engine:
        await run_of(engine, "t/go", after="1d")
    assert len(entered) == _ENTRIES
    naps = [f"after nap {n}" for n in range(_ENTRIES - 1)]
    assert lines.texts == ["began with t/go", "after one", *naps, "after two"]


async def test_lines_of_steps_and_branches(app, lines, stepwell_engine):
    @app.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        async def inside(name):
            ctx.logger.info("in %s", name)

        async def branch(n):
            await ctx.step.sleep(f"nap {n}", f"{n}h")
            ctx.logger.info("branch %d woke", n)
            await ctx.step.run(f"step {n}", inside, f"step {n}")

        await ctx.group.parallel(tuple(lambda n=n: branch(n) for n in (1, 2, 3)))
        ctx.logger.info("joined")

    async with stepwell_engine(app) as engine:
        await run_of(engine, "t/go", after="1d")
    woke = [line for n in (1, 2, 3) for line in (f"branch {n} woke", f"in step {n}")]
    assert lines.texts == [*woke, "joined"]


async def test_every_method_is_silent_while_replaying(app, lines, stepwell_engine):
    enabled: list[bool] = []

    @app.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        for name in ("debug", "info", "warning", "error", "critical"):
            getattr(ctx.logger, name)("%s %s", name, "line", extra={"order": 7})
        enabled.append(ctx.logger.isEnabledFor(logging.INFO))
        try:
            raise ValueError("seen")
        except ValueError:
            ctx.logger.exception("exception line")
        await ctx.step.sleep("nap", "1h")

    async with stepwell_engine(app) as engine:
        await run_of(engine, "t/go", after="2h")
    assert enabled == [True, False]
    assert lines.texts == [
        "info line",
        "warning line",
        "error line",
        "critical line",
        "exception line",
    ]
    assert all(record.filename == "test_logger.py" for record in lines.records)
    assert all(vars(record)["order"] == 7 for record in lines.records[:-1])
    assert lines.records[-1].exc_info is not None


async def test_a_line_after_a_retried_step_is_written_once(app, lines, stepwell_engine):
    tried: list[int] = []

    def flaky():
        tried.append(1)
        if len(tried) < 3:
            raise RuntimeError("not yet")

    @app.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        ctx.logger.info("first")
        await ctx.step.run("one", lambda: 1)
        await ctx.step.run("flaky", flaky)
        ctx.logger.info("last")

    async with stepwell_engine(app) as engine:
        await run_of(engine, "t/go", after="1h")
    assert [text for text in lines.texts if text in ("first", "last")] == ["first", "last"]


async def test_an_event_that_arrives_while_the_run_is_here(app, lines, stepwell_engine):
    @app.create_function(fn_id="f", trigger=TriggerEvent("t/go"))
    async def f(ctx):
        ctx.logger.info("began")
        first = await ctx.step.wait_for_event("first", event="t/first", timeout="1h")
        ctx.logger.info("heard %s", first and first.name)
        second = await ctx.step.wait_for_event("second", event="t/second", timeout="1h")
        ctx.logger.info("heard %s", second and second.name)

    async with stepwell_engine(app) as engine:
        [event_id] = await engine.send(Event("t/go"))
        await engine.settle()
        await engine.send(Event("t/first"))
        await engine.settle()
        await engine.send(Event("t/second"))
        await engine.wait(event_id)
    assert lines.texts == ["began", "heard t/first", "heard t/second"]
