"""A server with a coordinator and a worker as real processes, and the command line run in this one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stepwell.cli.app import app
from stepwell_engine.embedded import EmbeddedServer

APP = """
import os
import time

from stepwell import Backoff, Client, Context, Event, Retries, TriggerEvent

client = Client(app_id="shop")


@client.create_function(fn_id="greet", trigger=TriggerEvent("shop/hello", "event.data.name != 'nobody'"))
async def greet(ctx: Context) -> str:
    return await ctx.step.run("say", lambda: "hello " + ctx.event.data["name"])


@client.create_function(fn_id="fail", trigger=TriggerEvent("shop/fail"), retries=Retries(attempts=2, backoff=Backoff.constant(10)))
async def fail(ctx: Context) -> None:
    def broken() -> None:
        raise ValueError("no such thing")

    await ctx.step.run("try", broken)


@client.create_function(fn_id="wait", trigger=TriggerEvent("shop/wait"))
async def wait(ctx: Context) -> bool:
    found = await ctx.step.wait_for_event("answer", event="shop/answer", match="data.id", timeout="1h")
    return found is not None


@client.create_function(fn_id="slow", trigger=TriggerEvent("shop/slow"))
def slow(ctx) -> int:
    def work() -> int:
        open(ctx.event.data["file"], "a").write(f"{os.getpid()}\\n")
        time.sleep(ctx.event.data["seconds"])
        return os.getpid()

    return ctx.step.run("work", work)
"""


class Cli:
    """Runs `stepwell ...` in this process, against one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._runner = CliRunner()

    def run(self, *args: str, exit_code: int = 0, stdin: str | None = None) -> Result:
        env = {"STEPWELL_REDIS_URL": self.url, "STEPWELL_DEBUG": "", "TERM": "dumb"}
        result = self._runner.invoke(app, list(args), input=stdin, env=env)
        assert result.exit_code == exit_code, (args, result.output, result.exception)
        return result

    def json(self, *args: str, exit_code: int = 0) -> Any:
        return json.loads(self.run(*args, "--json", exit_code=exit_code).stdout)

    def until(self, ask: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        """The first true answer; another process works on it, so it is asked for."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if answer := ask():
                return answer
            time.sleep(0.05)
        raise AssertionError(f"{what} did not happen within {seconds} s")

    def run_of(self, event_id: str) -> str:
        """The one run that an event started."""

        def ask() -> str | None:
            record = self.json("events", "show", event_id)
            started = [o["run_id"] for o in record["outcomes"] if o["outcome"] == "started"]
            return started[0] if started else None

        found: str = self.until(ask, f"a run of event {event_id}")
        return found

    def ended(self, run_id: str) -> dict[str, Any]:
        def ask() -> dict[str, Any] | None:
            # Planned, not created yet: the record comes before the run.
            listed = [r["id"] for r in self.json("runs", "list", "--limit", "1000")["runs"]]
            run = self.json("runs", "show", run_id) if run_id in listed else {}
            return run if run.get("ended_at") else None

        found: dict[str, Any] = self.until(ask, f"the end of run {run_id}")
        return found


class Processes:
    """Child processes of a test: started by their command line, killed when it is over."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.env = {**os.environ, "STEPWELL_REDIS_URL": url}
        self.all: list[subprocess.Popen[str]] = []

    def start(self, *args: str) -> subprocess.Popen[str]:
        log = (self.folder / f"{args[0]}.log").open("a")
        process = subprocess.Popen(
            [sys.executable, "-m", "stepwell.cli", *args],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
        )
        log.close()
        self.all.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> None:
        for process in self.all:
            process.send_signal(signal.SIGKILL)
            process.wait()


def make_folder(path: Path) -> Path:
    (path / "jobs.py").write_text(APP)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the app in it."""
    return make_folder(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(appendonly=True) as running:
        yield running


@pytest.fixture(scope="module")
def cli(server: EmbeddedServer) -> Cli:
    """The command line, with nobody else there."""
    return Cli(server.url)


@pytest.fixture(scope="module")
def live(
    server: EmbeddedServer, cli: Cli, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cli]:
    """The command line beside a coordinator and a worker."""
    processes = Processes(make_folder(tmp_path_factory.mktemp("live")), server.url)
    try:
        processes.start("coordinator")
        processes.start("worker", "jobs:client")
        cli.until(lambda: cli.json("functions")["functions"], "the registration of functions")
        yield cli
    finally:
        processes.stop()


@pytest.fixture
def processes(project: Path, server: EmbeddedServer) -> Iterator[Processes]:
    started = Processes(project, server.url)
    yield started
    started.stop()
