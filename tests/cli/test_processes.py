"""worker, coordinator and dev as processes: drained, killed, reloaded, asked for their health."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from stepwell_engine.embedded import EmbeddedServer, free_port
from tests.cli.conftest import Cli, Processes


@pytest.fixture
def started(processes: Processes, cli: Cli) -> Processes:
    """A coordinator, and the functions known."""
    processes.start("coordinator")
    return processes


def ready(processes: Processes, cli: Cli, *args: str) -> "subprocess.Popen[str]":
    """A worker that leases."""
    port = free_port()
    worker = processes.start("worker", "jobs:client", "--metrics-port", str(port), *args)
    cli.until(lambda: get(port, "/readyz")[0] == 200, "readiness")
    return worker


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""
    except OSError:
        return 0, ""


def slow(cli: Cli, folder: Path, seconds: float) -> tuple[str, Path]:
    """A run of a step that takes `seconds`, begun; the file has a line for each begin."""
    file = folder / f"{time.monotonic_ns()}.txt"
    data = json.dumps({"file": str(file), "seconds": seconds})
    event_id = cli.run("send", "shop/slow", data).stdout.strip()
    run_id = cli.run_of(event_id)
    cli.until(lambda: file.exists() and file.read_text(), "the step's begin")
    return run_id, file


def test_sigterm_lets_the_step_end(started: Processes, cli: Cli) -> None:
    worker = ready(started, cli)
    run_id, file = slow(cli, started.folder, 1.0)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    run = cli.json("runs", "show", run_id)
    assert [s["status"] for s in run["steps"]] == ["completed"]
    assert len(file.read_text().split()) == 1
    assert "draining" in started.log("worker")


def test_a_second_signal_releases_the_work(started: Processes, cli: Cli) -> None:
    worker = ready(started, cli)
    run_id, _ = slow(cli, started.folder, 30.0)
    worker.send_signal(signal.SIGTERM)
    cli.until(lambda: "draining" in started.log("worker"), "the drain")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    run = cli.json("runs", "show", run_id)
    assert run["status"] == "queued", run
    cli.run("runs", "cancel", run_id)


def test_killed_worker_and_coordinator_lose_nothing(started: Processes, cli: Cli) -> None:
    worker = ready(started, cli)
    run_id, file = slow(cli, started.folder, 1.0)
    for process in (worker, started.all[0]):
        process.kill()
        process.wait()
    started.start("coordinator")
    ready(started, cli)
    # The lease of the dead one (20 s) runs out first.
    run = cli.until(
        lambda: (r := cli.json("runs", "show", run_id))["ended_at"] and r, "the end", seconds=60
    )
    assert run["status"] == "completed"
    assert len(file.read_text().split()) == 2
    assert [e["outcome"] for e in run["entries"]] == ["lost", "finished"]
    assert "its worker was lost" in cli.run("runs", "show", run_id).stdout


def free_pair() -> int:
    """A free port whose next one is free too, below those that the system gives to others meanwhile."""
    for port in random.Random().sample(range(21_000, 29_000, 2), 100):
        try:
            with (
                socket.create_server(("127.0.0.1", port)),
                socket.create_server(("127.0.0.1", port + 1)),
            ):
                return port
        except OSError:
            continue
    raise AssertionError("no two ports in a row are free")


def test_two_processes_with_their_own_metrics(started: Processes, cli: Cli) -> None:
    port = free_pair()
    pool = started.start(
        "worker", "jobs:client", "--processes", "2", "--metrics-port", str(port), "--drain", "2s"
    )
    cli.until(lambda: get(port, "/readyz")[0] == get(port + 1, "/readyz")[0] == 200, "readiness")
    event_id = cli.run("send", "shop/hello", '{"name": "Mia"}').stdout.strip()
    assert cli.ended(cli.run_of(event_id))["output"] == "hello Mia"
    text = get(port, "/metrics")[1] + get(port + 1, "/metrics")[1]
    assert 'stepwell_runs_ended_total{app="shop",function="greet",status="completed"} 1.0' in text
    pool.send_signal(signal.SIGTERM)
    assert pool.wait(20) == 0


def test_coordinator_answers_probes_and_ends_at_sigterm(processes: Processes, cli: Cli) -> None:
    port = free_port()
    coordinator = processes.start("coordinator", "--metrics-port", str(port))
    cli.until(lambda: get(port, "/readyz")[0] == 200, "readiness")
    assert get(port, "/healthz")[0] == 200
    assert "stepwell_events_accepted_total" in get(port, "/metrics")[1]
    coordinator.send_signal(signal.SIGTERM)
    assert coordinator.wait(20) == 0
    assert "Traceback" not in processes.log("coordinator")


def test_settings_that_lose_data_are_warned_about(project: Path) -> None:
    with EmbeddedServer() as careless:
        processes = Processes(project, careless.url)
        cli = Cli(careless.url)
        try:
            processes.start("coordinator")
            ready(processes, cli)
            for name in ("coordinator", "worker"):
                assert "no append-only file" in processes.log(name)
            report = cli.json("doctor", exit_code=1)
            assert [f["check"] for f in report["findings"] if f["level"] == "problem"] == [
                "settings"
            ]
        finally:
            processes.stop()


def test_dev_runs_reloads_and_keeps_its_state(project: Path) -> None:
    processes = Processes(project, "redis://127.0.0.1:1")  # dev has a server of its own
    try:
        dev = processes.start("dev", "jobs:client")
        cli = Cli(_url(processes))
        cli.until(lambda: cli.json("functions")["functions"], "the registration")
        first = cli.run("send", "shop/hello", '{"name": "Mia"}').stdout.strip()
        assert cli.ended(cli.run_of(first))["output"] == "hello Mia"

        source = (project / "jobs.py").read_text()
        (project / "jobs.py").write_text(source.replace('"hello "', '"moin "'))
        cli.until(lambda: "reloading" in processes.log("dev"), "the reload")
        second = cli.run("send", "shop/hello", '{"name": "Mia"}').stdout.strip()
        cli.until(lambda: cli.ended(cli.run_of(second)), "the second run")

        refused = subprocess.run(
            [sys.executable, "-m", "stepwell.cli", "dev", "jobs:client"],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert refused.returncode == 2
        assert "in use by another stepwell dev" in refused.stderr

        dev.send_signal(signal.SIGINT)
        assert dev.wait(30) == 0, processes.log("dev")
        (project / "dev.log").unlink()
        processes.start("dev", "jobs:client")
        assert _url(processes) == cli.url
        cli.until(lambda: "shop/hello" in cli.run("runs", "list").stdout, "the old state")
        third = cli.run("send", "shop/hello", '{"name": "Mia"}').stdout.strip()
        assert cli.ended(cli.run_of(third))["output"] == "moin Mia"
    finally:
        processes.stop()


def test_dev_restarts_a_killed_server(project: Path) -> None:
    processes = Processes(project, "redis://127.0.0.1:1")
    try:
        processes.start("dev", "jobs:client")
        cli = Cli(_url(processes))
        cli.until(lambda: cli.json("functions")["functions"], "the registration")
        sent = cli.run("send", "shop/wait", '{"id": 1}').stdout.strip()
        run_id = cli.run_of(sent)
        waiting = ("runs", "list", "--status", "waiting")
        cli.until(lambda: run_id in cli.run(*waiting).stdout, "the wait")
        info = cli.json("doctor")["findings"][0]["text"]
        os.kill(_server_pid(cli.url), signal.SIGKILL)
        cli.until(lambda: "starting it again" in processes.log("dev"), "the restart")

        def answered() -> bool:
            result = cli._runner.invoke(
                _app(), ["send", "shop/answer", '{"id": 1}'], env={"STEPWELL_REDIS_URL": cli.url}
            )
            return result.exit_code == 0

        cli.until(answered, "an accepted answer")
        assert cli.ended(run_id)["output"] is True
        assert cli.json("doctor")["findings"][0]["text"] == info
    finally:
        processes.stop()


def test_dev_that_cannot_load_waits_for_a_change(project: Path) -> None:
    source = (project / "jobs.py").read_text()
    (project / "jobs.py").write_text("client = 1\n")
    processes = Processes(project, "redis://127.0.0.1:1")
    try:
        processes.start("dev", "jobs:client")
        cli = Cli(_url(processes))
        cli.until(lambda: "waiting for a change" in processes.log("dev"), "the failure")
        assert "is a int, not a stepwell.Client" in processes.log("dev")
        (project / "jobs.py").write_text(source)
        cli.until(lambda: cli.json("functions")["functions"], "the registration")
    finally:
        processes.stop()


def _app():
    from stepwell.cli.app import app

    return app


def _url(processes: Processes) -> str:
    def ask() -> str | None:
        found = re.search(r"server +(redis://\S+)", processes.log("dev"))
        return found[1] if found else None

    url: str = Cli("").until(ask, "dev's URL")
    return url


def _server_pid(url: str) -> int:
    from redis import Redis

    with Redis.from_url(url) as redis:
        return int(redis.info("server")["process_id"])
