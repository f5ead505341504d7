"""`stepwell functions`: what is registered, and taking out what the code no longer has."""

import asyncio
from collections.abc import Iterator

import pytest

from stepwell.client import Client
from stepwell.events import Event
from stepwell_engine.coordinator import Coordinator
from stepwell_engine.embedded import EmbeddedServer
from stepwell_engine.registry import register
from stepwell_engine.store.store import Store
from tests.cli.conftest import Cli
from tests.integration.coordination import settled

ON_PAID = {"event": "shop/paid", "expression": None}


@pytest.fixture
def filled(server: EmbeddedServer, cli: Cli) -> Iterator[Cli]:
    """Two functions of an app and one of another whose names read alike; `ship` has a run that nobody takes."""
    server.command("FLUSHALL")

    async def fill() -> None:
        store = await Store.open(server.url, namespace="stepwell")
        names = [("shop", "ship", [ON_PAID]), ("a/b", "c", []), ("a", "b/c", []), ("a", "b", [])]
        await register(
            store,
            [
                (
                    app,
                    fn,
                    {
                        "app_id": app,
                        "fn_id": fn,
                        "retries": {},
                        "app_version": None,
                        "triggers": on,
                    },
                )
                for app, fn, on in names
            ],
            1,
        )
        async with Client(app_id="shop", redis_url=server.url) as client, Coordinator(store) as c:
            await client.send(Event("shop/paid"))
            await settled(c)
        await store.aclose()

    cli.run("cron")  # makes the namespace
    asyncio.run(fill())
    yield cli
    server.command("FLUSHALL")


def listed(cli: Cli) -> list[tuple[str, str]]:
    return [(f["app_id"], f["fn_id"]) for f in cli.json("functions")["functions"]]


def test_a_function_is_removed(filled: Cli) -> None:
    assert ("a", "b") in listed(filled)
    said = filled.run("functions", "remove", "a/b", stdin="y\n").stdout
    assert "Nothing will start a/b any more. Go on?" in said
    assert "Removed: a/b" in said
    assert ("a", "b") not in listed(filled)
    assert (
        "no function 'b'" in filled.run("functions", "remove", "a/b", "--yes", exit_code=1).stderr
    )


def test_nothing_happens_without_consent(filled: Cli) -> None:
    filled.run("functions", "remove", "a/b", stdin="n\n", exit_code=1)
    said = filled.run("functions", "remove", "a/b", "--json", exit_code=2).stderr
    assert "say --yes as well" in " ".join(said.split())
    assert ("a", "b") in listed(filled)


def test_live_runs_are_asked_about(filled: Cli) -> None:
    said = filled.run("functions", "remove", "shop/ship", "--yes", exit_code=1).stderr
    assert "shop/ship has 1 run that have not ended" in said
    assert "--cancel-runs" in said
    both = filled.run(
        "functions", "remove", "shop/ship", "--keep-runs", "--cancel-runs", exit_code=2
    )
    assert "give either" in both.stderr
    done = filled.json("functions", "remove", "shop/ship", "--cancel-runs", "--yes")
    assert done == {"app_id": "shop", "fn_ids": ["ship"], "cancelled": 1, "left": 0}
    (run,) = filled.json("runs", "list")["runs"]
    assert (run["function_id"], run["status"]) == ("shop-ship", "cancelled")
    assert ("shop", "ship") not in listed(filled)


def test_runs_that_are_kept(filled: Cli) -> None:
    said = filled.run("functions", "remove", "shop/ship", "--keep-runs", "--yes").stdout
    assert "Runs left to workers that still have the code: 1" in said


def test_names_that_read_alike_or_are_unknown(filled: Cli) -> None:
    said = filled.run("functions", "remove", "a/b/c", "--yes", exit_code=1).stderr
    assert "may be ('a', 'b/c') and ('a/b', 'c')" in " ".join(said.split())
    assert "no such function" in filled.run("functions", "remove", "shop/sail", exit_code=1).stderr
