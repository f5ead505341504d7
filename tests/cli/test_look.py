"""send, events, runs, functions, doctor, version: what they say, as people and as programs read it."""

import json
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepwell.cli.app import app
from stepwell.errors import EventInvalidError
from stepwell_engine.embedded import EmbeddedServer
from tests.cli.conftest import Cli


def test_a_sent_event_is_shown_with_its_run(live: Cli) -> None:
    event_id = live.run("send", "shop/hello", '{"name": "Mia"}').stdout.strip()
    run_id = live.run_of(event_id)
    run = live.ended(run_id)
    assert (run["status"], run["output"]) == ("completed", "hello Mia")
    assert [(s["id"], s["status"]) for s in run["steps"]] == [("say", "completed")]
    assert run["function_id"] == "shop-greet"
    text = live.run("runs", "show", run_id).stdout
    assert all(word in text for word in ("completed", "step say", "hello Mia", "worker took it"))
    text = live.run("events", "show", event_id).stdout
    assert "started" in text
    assert run_id in text
    (outcome,) = live.json("events", "show", event_id)["outcomes"]
    assert outcome["reason"] == f"started run {run_id}"


def test_a_failed_run_shows_attempts_and_error(live: Cli) -> None:
    (event_id,) = live.json("send", "shop/fail")["ids"]
    run = live.ended(live.run_of(event_id))
    assert run["status"] == "failed"
    assert "no such thing" in run["error"]["message"]
    assert len(run["steps"][0]["attempts"]) == 2
    text = live.run("runs", "show", run["id"]).stdout
    assert "attempt 1: ValueError: no such thing" in text
    assert "error: ValueError: no such thing" in text
    assert run["id"] in live.run("runs", "list", "--status", "failed", "--fn", "fail").stdout


def test_a_waiting_run_tells_what_for_and_is_cancelled(live: Cli) -> None:
    event_id = live.run("send", "shop/wait", '{"id": 7}').stdout.strip()
    run_id = live.run_of(event_id)

    def waits() -> str | None:
        listed = live.json("runs", "list", "--fn", "wait", "--status", "waiting")["runs"]
        return "yes" if [r for r in listed if r["id"] == run_id] else None

    live.until(waits, "the wait")
    assert "shop/answer" in live.run("runs", "show", run_id).stdout
    said = live.run("runs", "explain", run_id).stdout
    assert "waits in step 'answer' for event 'shop/answer' with data.id == 7 until" in said
    assert live.json("runs", "explain", run_id)["text"] == said.rstrip("\n")
    done = live.json("runs", "cancel", run_id, "--reason", "out of stock")["runs"]
    assert [(d["id"], d["error"]) for d in done] == [(run_id, None)]
    run = live.ended(run_id)
    assert run["status"] == "cancelled"
    assert "out of stock" in run["error"]["message"]
    assert live.json("runs", "cancel", run_id)["runs"][0]["status"] == "cancelled"


def test_cancelling_goes_on_after_an_unknown_run(live: Cli) -> None:
    unknown = "01J0000000000000000000000Z"
    result = live.run("runs", "cancel", unknown, "nonsense", exit_code=1)
    assert "no run" in result.stdout
    assert "nonsense" in result.stdout


def test_many_runs_are_cancelled_at_once(live: Cli) -> None:
    for n in (71, 72, 73):
        live.run("send", "shop/wait", json.dumps({"id": n, "batch": n > 71}))
    which = ("--function", "wait", "--app", "shop", "--if", "event.data.batch == true")

    def there() -> bool:
        found = live.json("runs", "cancel", *which, "--status", "waiting", "--dry-run")
        return bool(found["count"] == 2 and found["dry_run"])

    live.until(there, "two waits")
    live.run("runs", "cancel", *which, "--json", exit_code=2)
    live.run("runs", "cancel", "--yes", exit_code=2)
    live.run("runs", "cancel", "01J0000000000000000000000Z", *which, exit_code=2)
    said = live.run("runs", "cancel", *which, stdin="n\n", exit_code=1).stdout
    assert "will be cancelled: 2" in said
    said = live.run("runs", "cancel", *which, "--limit", "1", "--yes").stdout
    assert said == "Runs cancelled: 1\n"
    said = live.run("runs", "cancel", *which, "--children", stdin="y\n").stdout
    assert said.endswith("Runs cancelled: 1\n")
    assert "No runs to cancel." in live.run("runs", "cancel", *which).stdout
    assert live.json("runs", "cancel", "--function", "wait", "--yes")["count"] == 1


def test_events_that_start_nothing_say_why(live: Cli) -> None:
    filtered = live.run("send", "shop/hello", '{"name": "nobody"}').stdout.strip()
    unwanted = live.run("send", "shop/unheard-of").stdout.strip()
    for event_id, word in ((filtered, "filtered"), (unwanted, "No function wanted it")):
        live.until(partial(_handled, live, event_id), "handling")
        assert word in live.run("events", "show", event_id).stdout
    first = live.run("send", "shop/unheard-of", "--id", "evt-1").stdout
    assert live.run("send", "shop/unheard-of", "--id", "evt-1").stdout == first


def test_a_file_of_lines_is_one_event_each(live: Cli, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"name": "Ada"}\n\n{"name": "Noor"}\n')
    assert len(live.json("send", "shop/unheard-of", f"@{file}")["ids"]) == 2
    sent = live.run("send", "shop/unheard-of", "-", stdin='{"name": "Ada"}')
    assert len(sent.stdout.split()) == 1


def test_what_a_sender_wrote_can_not_write_the_terminal(live: Cli) -> None:
    name = "shop/unheard\x1b[2J\nof"
    event_id = live.run("send", name, json.dumps({"a": "\x9b2J\u202e"})).stdout.strip()
    text = live.run("events", "show", event_id).stdout
    assert r"shop/unheard\x1b[2J\nof" in text
    assert r"\x9b2J\u202e" in text


def test_functions_are_listed_with_their_triggers(live: Cli) -> None:
    text = live.run("functions").stdout
    assert "shop/hello if event.data.name != 'nobody'" in text
    found = {f["fn_id"]: f for f in live.json("functions")["functions"]}
    assert set(found) == {"greet", "fail", "wait", "slow"}


def test_doctor_is_content(live: Cli) -> None:
    report = live.json("doctor")
    assert report["ok"], report
    checks = {f["check"] for f in report["findings"]}
    assert {"server", "settings", "memory", "clock", "workers", "coordinators", "data"} <= checks
    assert "append-only file" in live.run("doctor").stdout


def test_doctor_finds_what_loses_data(live: Cli, server: EmbeddedServer) -> None:
    key = "{stepwell:0}:r:01J0000000000000000000000Z"
    server.command("CONFIG", "SET", "maxmemory", str(10**9))
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.command("HSET", key, "st", "q", "rs", "q")
    try:
        text = live.run("doctor", exit_code=1).stdout
        assert "set maxmemory-policy noeviction" in " ".join(text.split())
        assert "limbo" in text
        assert key.rpartition(":")[2] in text
    finally:
        server.command("DEL", key)
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.command("CONFIG", "SET", "maxmemory", "0")
    assert live.json("doctor", "--no-audit")["ok"]


def test_version(cli: Cli) -> None:
    assert cli.run("version").stdout.startswith("stepwell ")
    assert set(cli.json("version")) >= {"stepwell", "python", "redis"}


@pytest.mark.parametrize(
    ("args", "says", "code"),
    [
        (("send", "shop/x", "{'a': 1}"), "not JSON", 2),
        (("send", "shop/x", "[1]"), "an event's data is a JSON object, not [1]", 2),
        (("send", "shop/x", "@/nowhere.json"), "@/nowhere.json: can't be read", 2),
        (("send", ""), "Event.name: empty", 2),
        (("send", "inngest/x"), "kept for internal events", 2),
        (("send", "shop/x", "--ts", "5"), "Event.ts: 5 is not between 1980 and 2100", 2),
        (("runs", "list", "--status", "lost"), "Error: --status: 'lost'; write one of", 2),
        (("runs", "cancel", "--yes"), "give the ids of runs, or which of", 2),
        (("runs", "cancel", "--app", "x", "--status", "failed"), "Error: --status: runs that", 2),
        (("runs", "cancel", "--fn", "x", "--after", "soon"), "Error: --after: 'soon' is not", 2),
        (("runs", "cancel", "--fn", "", "--yes"), "Error: --function: ", 2),
        (("runs", "cancel", "--fn", "typo", "--yes"), "has registered function 'typo';", 1),
        (("runs", "cancel", "--app", "typo", "--fn", "x", "--yes"), "'x' of app 'typo';", 1),
        (("runs", "list", "--cursor", "%"), "cursor='%'", 2),
        (("runs", "show", "nonsense"), "'nonsense' is no run", 1),
        (("events", "show", "nonsense"), "no event 'nonsense'", 1),
        (("runs", "list", "--namespace", "a b"), "namespace='a b'", 2),
        (("runs", "list", "--redis-url", "http://x"), "redis://", 2),
        (("runs", "list", "--redis-url", "redis://127.0.0.1:1"), "127.0.0.1:1", 1),
        (("worker", "nowhere:client"), "there is no module 'nowhere'", 2),
        (("worker", "jobs"), "write jobs:client", 2),
        (("worker", "jobs:client", "--drain", "soon"), "--drain: 'soon' is not a duration", 2),
        (("worker", "jobs:client", "--log-level", "loud"), "--log-level 'loud'", 2),
        (("coordinator", "--retention", "1s"), "retention='1s' is too short", 2),
        (("send",), "Usage:", 2),
    ],
)
def test_errors_say_what_and_where(cli: Cli, args: tuple[str, ...], says: str, code: int) -> None:
    result = cli.run(*args, exit_code=code)
    text = " ".join((result.stderr + result.stdout).split())
    assert says in text, text
    assert "Traceback" not in text


def test_shards_of_another_count_are_refused(cli: Cli) -> None:
    cli.run("send", "shop/x", "--namespace", "four", "--shards", "4")
    result = cli.run("send", "shop/x", "--namespace", "four", "--shards", "2", exit_code=2)
    assert "has 4 shards, not 2" in result.stderr
    assert json.loads(cli.run("doctor", "--namespace", "four", "--json").stdout)["ok"]


def test_debug_lets_the_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_DEBUG", "")  # restored, whatever the command sets
    result = CliRunner().invoke(app, ["--debug", "send", "inngest/x"])
    assert isinstance(result.exception, EventInvalidError)


def _handled(cli: Cli, event_id: str) -> bool:
    return not cli.json("events", "show", event_id)["pending"]
