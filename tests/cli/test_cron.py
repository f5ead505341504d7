"""`stepwell cron`: what starts by the clock, what it last started, and when it starts again."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stepwell.clock import SystemClock, VirtualClock
from stepwell_engine.cron_run import Crons
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.metrics import Metrics
from stepwell_engine.registry import Registry, register
from stepwell_engine.store.store import Store
from tests.cli.conftest import Cli

HOUR = 3_600_000


def config(fn: str, *triggers: dict[str, Any]) -> dict[str, Any]:
    return {"app_id": "shop", "fn_id": fn, "retries": {}, "app_version": None, "triggers": triggers}


def cron(text: str, zone: str | None = None, **more: Any) -> dict[str, Any]:
    return {"cron": text, "timezone": zone, "jitter": None, "catchup": "last", **more}


FUNCTIONS = {
    "clean": config("clean", cron("*/30 * * * *", jitter=5_000), cron("@yearly", "Asia/Tokyo")),
    "report": config("report", cron("TZ=Europe/Berlin 17 9 * * 1", catchup="all")),
    "ship": config("ship", {"event": "shop/paid", "expression": None}),
}


@pytest.fixture(scope="module")
def filled(server: EmbeddedServer, cli: Cli) -> Cli:
    """Functions registered three hours ago; one tick was handled just now."""

    async def fill() -> None:
        clock = VirtualClock(-3 * HOUR)
        store = await Store.open(server.url, namespace="stepwell", clock=clock)
        try:
            await register(store, [("shop", fn, c) for fn, c in FUNCTIONS.items()], 1)
            registry = Registry(store)
            crons = Crons(store, registry, Metrics())
            await crons.sync()
            number = registry.find("shop", "clean").number
            await crons.handle(0, [number], SystemClock().now_ms())
        finally:
            await store.aclose()

    cli.run("cron")  # makes the namespace
    asyncio.run(fill())
    return cli


@pytest.fixture(scope="module", autouse=True)
def _empty_first(server: EmbeddedServer) -> Iterator[None]:
    server.command("FLUSHALL")
    yield
    server.command("FLUSHALL")


def test_an_empty_namespace_says_so(cli: Cli) -> None:
    said = cli.run("cron", "--namespace", "nobody").stdout
    assert "No worker has registered a function with a cron yet." in said
    assert cli.json("cron", "--namespace", "nobody") == {"crons": []}


def test_crons_as_programs_read_them(filled: Cli) -> None:
    clean, yearly, report = filled.json("cron", "--next", "3")["crons"]
    assert [c["fn_id"] for c in (clean, yearly, report)] == ["clean", "clean", "report"]
    assert (clean["timezone"], clean["jitter_ms"], clean["catchup"]) == ("UTC", 5000, "last")
    assert (report["timezone"], report["catchup"]) == ("Europe/Berlin", "all")
    assert yearly["last"] is report["last"] is None
    last = clean["last"]
    tick = datetime.fromisoformat(last["tick"])
    assert timedelta(0) <= datetime.now(UTC) - tick < timedelta(minutes=31)
    assert last["status"] in {"queued", "scheduled"}
    assert last["run_id"] == filled.json("runs", "list", "--fn", "clean")["runs"][0]["id"]
    for each in (clean, yearly, report):
        utc = [datetime.fromisoformat(n["utc"]) for n in each["next"]]
        assert [datetime.fromisoformat(n["local"]) for n in each["next"]] == utc
        assert datetime.now(UTC) < utc[0] < utc[1] < utc[2]
    monday = datetime.fromisoformat(report["next"][0]["local"])
    assert f"{monday:%a %H:%M}" == "Mon 09:17"
    assert report["next"][0]["local"][-6:] in {"+01:00", "+02:00"}


def test_crons_as_people_read_them(filled: Cli) -> None:
    said = filled.run("cron").stdout
    words = (
        "shop/clean",
        "*/30 * * * *",
        "shop/report",
        "17 9 * * 1",
        "Europe/Berlin",
        "Asia/Tokyo",
        "JST",
    )
    assert all(word in said for word in words), said
    assert "shop/ship" not in said
    assert "TZ=" not in said
    assert len(filled.run("cron", "--next", "3").stdout.split(" 09:17 ")) == 4


def test_functions_tells_of_crons_too(filled: Cli) -> None:
    said = filled.run("functions").stdout
    assert "cron */30 * * * *, cron @yearly (Asia/Tokyo)" in " ".join(said.split())


@pytest.mark.parametrize("count", ["0", "101", "many"])
def test_how_many(cli: Cli, count: str) -> None:
    assert "--next" in cli.run("cron", "--next", count, exit_code=2).stderr
