"""The order pipeline, as `make demo` runs it but shorter: to its end, through the death of everything it starts."""

import asyncio
import os
import re
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console

from examples.order_pipeline import demo, webhooks
from stepwell import Event
from stepwell.serde import to_json

ORDERS = 12
PACE = 0.01


def test_the_expected_runs_follow_from_the_file() -> None:
    found = webhooks.read()
    assert (len(found.events), len(found.refused), found.repeated) == (230, 3, 6)
    runs = webhooks.expected(found.events)
    assert runs["fulfil-order", "completed"] == 93
    assert runs["fulfil-order", "failed"] == runs["fulfil-order-failure", "completed"] == 5
    assert runs.total() == 406


def test_events_carry_the_sender_s_ids() -> None:
    events: Iterable[Event] = webhooks.read(limit=3).events
    assert all(event.id.startswith("evt_") for event in events)
    assert all(to_json(event.data) == event.data for event in events)


@pytest.fixture
def console(tmp_path: Path) -> Iterable[Console]:
    with (tmp_path / "out.txt").open("w") as file:
        yield Console(file=file, width=160)


def _said(tmp_path: Path) -> str:
    return (tmp_path / "out.txt").read_text()


@pytest.mark.anyio
async def test_it_ends_as_expected(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPWELL_REDIS_URL", "")  # restored afterwards; the demo sets it
    assert await demo.main(console, tmp_path / "demo", ORDERS, PACE) == 0
    said = _said(tmp_path)
    assert "ended as expected" in said
    assert "0 process(es) died" in said
    assert "GatewayTimeoutError" in said
    assert not (tmp_path / "demo" / "unfinished").exists()


@pytest.mark.anyio
async def test_kills_change_nothing_but_the_time(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPWELL_REDIS_URL", "")
    task = asyncio.create_task(demo.main(console, tmp_path / "demo", ORDERS, PACE * 10))
    for name in ("worker", "server", "coordinator"):
        pid = await _until(tmp_path, console, task, name)
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
    assert await task == 0, _said(tmp_path)
    assert "3 process(es) died" in _said(tmp_path)


async def _until(tmp_path: Path, console: Console, task: "asyncio.Task[int]", name: str) -> int:
    """The pid of one of the demo's processes, once it tells."""
    while not task.done():
        console.file.flush()
        if found := re.search(rf"kill -9 any of .*?{name} (\d+)", _said(tmp_path)):
            return int(found[1])
        await asyncio.sleep(0.05)
    raise AssertionError(_said(tmp_path))


@pytest.mark.anyio
async def test_a_killed_demo_goes_on_where_it_was(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPWELL_REDIS_URL", "")
    first = asyncio.create_task(demo.main(console, tmp_path / "demo", ORDERS, PACE * 10))
    await _until(tmp_path, console, first, "server")
    await asyncio.sleep(1.0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await demo.main(console, tmp_path / "demo", ORDERS, PACE) == 0, _said(tmp_path)
    assert "going on with it" in _said(tmp_path)
