"""Each script's header against its typed stub: same scripts, same arguments in the same order."""

import asyncio
import inspect
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import pytest

from stepwell.clock import SystemClock
from stepwell_engine.store.keys import Keys
from stepwell_engine.store.scripts import Script, load
from stepwell_engine.store.shapes import Guard
from stepwell_engine.store.transitions import NAMES, NewEvent, NewRun, Transitions
from tests.support.shard import Shard

LUA = resources.files("stepwell_engine.store") / "lua"

EVENT = NewEvent("n", b"e", "x" * 16)
RUN = NewRun("r" * 26, "1", "app", b"blob", 0, 1)

# For each stub a call, and how many arguments each word of the header stands for in it.
CALLS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "ingest": (
        {"seed": "s", "events": [EVENT, EVENT], "max_len": 1, "dedupe_ms": 1, "deadline": None},
        {"kind": 2, "name": 2, "encoded": 2, "entropy": 2, "id_hash": 2, "extra": 2},
    ),
    "arrive": (
        {
            "group": "g",
            "consumer": "c",
            "after": "0-0",
            "most": 4,
            "version": b"3",
            "names": ["name", 1, "1", "app", "3\0app\0fn", "other", 1, "2", "app", "3\0app\0fn"],
        },
        {"name": 2, "functions": 2, "fn": 2, "lane": 2, "cause...": 2},
    ),
    "fanout": (
        {
            "group": "g",
            "entries": ["1-1", "1-2"],
            "records": [("e", b"r")],
            "runs": [RUN],
            "record_ttl_ms": 1,
            "guard": Guard(b"3", ["name"]),
        },
        {"entry": 2, "guard": 2},
    ),
    "admit": (
        {
            "group": "g",
            "entries": ["1-1", "1-2"],
            "records": [("e", b"r")],
            "runs": [RUN],
            "record_ttl_ms": 1,
            "guard": Guard(b"3", ["name"]),
        },
        {"entry": 2, "guard": 2},
    ),
    "configure": (
        {"version": 1, "functions": [("1", "app", 5, "", "", "", 1)], "most": 10, "told": True},
        {},
    ),
    "permit": (
        {"kind": "g", "gate": "x", "permit": "0-1", "word": "1 5", "home": 0},
        {},
    ),
    "plan": ({"event": "e", "record": b"r", "ttl_ms": 1}, {}),
    "lease": (
        {
            "worker": "w",
            "prefix": "p",
            "lanes": ["a", "b"],
            "want": 1,
            "lease_ms": 1,
            "suspects": 1,
        },
        {"lane": 2},
    ),
    "commit": (
        {"run": "r", "step": "", "token": "t", "dv": 0, "clause": ("N",), "ops": ("m", "w")},
        {"op": 2, "...": 0},
    ),
    "record": ({"records": ["r", "", "t", "n", b"d"]}, {}),
    "returned": ({"runs": ["r", "t", b"o"]}, {}),
    "due": ({"limit": 1, "horizon_ms": 1, "timeout_error": b"", "cancelled_error": b""}, {}),
    "renew": (
        {"worker": "w", "items": [("i", "t"), ("j", "u")], "alive_ms": 1, "lease_ms": 1},
        {"item": 2, "token": 2},
    ),
    "expired": ({"limit": 1}, {}),
    "reclaim": ({"items": [("i", "t", 3, b"e")]}, {}),
    "started": ({"run": "r", "step": "", "token": "t", "what": b"w"}, {}),
    "awaited": ({"names": ["a", "b"]}, {"name": 2}),
    "candidates": (
        {"pages": [("n", b"p", b"a"), ("n", b"p", b"a")]},
        {"name": 2, "prefix": 2, "after": 2},
    ),
    "answered": ({"run": "r", "entry": b"1-1"}, {}),
    "resolve": ({"run": "r", "step": "s", "registered": "", "status": "n", "value": b""}, {}),
    "cancel": ({"run": "r", "error": b"", "grace_ms": 1}, {}),
    "signal_reserve": ({"hash_": "h", "run": "r", "step": "s", "expiry_ms": 1}, {}),
    "signal_send": ({"hash_": "h", "value": b""}, {}),
    "signal_free": ({"hash_": "h", "holder": "r:s"}, {}),
    "namespace": ({"shards": 1, "schema": 1}, {}),
    "register": (
        {"started_ms": 1, "configs": [("f", b"c"), ("g", b"d")]},
        {"field": 2, "config": 2},
    ),
    "unregister": ({"fields": ["f", "g"]}, {"field": 2}),
    "deny": ({"run": "r", "number": "1", "outcome": "not_found"}, {}),
    "crons": ({"numbers": ["1", "2"]}, {"fn": 2}),
    "set_aside": ({"group": "g", "entry": "1-1", "kept": b"k"}, {}),
    "watch": ({"run": "r", "watcher": "w", "ttl_ms": 1}, {}),
    "sweep": ({"before_ms": 1, "limit": 1}, {}),
    "remember": (
        {"events": [("n", 1, b"b"), ("m", 2, b"c")], "most": 1, "age_ms": 1, "ttl_ms": 1},
        {"name": 2, "us": 2, "blob": 2},
    ),
    "recent": ({"name": "n", "since_us": 1, "age_ms": 1}, {}),
    "close": ({"windows": ["~1:a", "~1:b"]}, {"item": 2}),
    "tick": (
        {
            "number": "1",
            "next_ms": 1,
            "before": {"a": b"1"},
            "after": {"b": b"2"},
            "records": [("e", b"r")],
            "runs": [RUN],
            "record_ttl_ms": 1,
        },
        {},
    ),
    "forget_consumers": ({"group": "g", "me": "c", "idle_ms": 1}, {}),
}


class SentError(Exception):
    """What a stub sends, instead of sending it."""


class Recorder:
    """Stands where the server is: nothing here is about what a server does."""

    def script(
        self, key: str, script: Script, keys: Sequence[str], args: Sequence[Any], **_: Any
    ) -> Any:
        raise SentError(script, keys, args)


def files() -> list[str]:
    return sorted(f.name.removesuffix(".lua") for f in LUA.iterdir() if f.name.endswith(".lua"))


def words(script: Script) -> list[str]:
    """The header's arguments, without the marks of repetition."""
    plain = (re.sub(r"[\[\]]|\.\.\.$", "", word) for word in script.argv)
    return [word or "..." for word in plain]


def test_every_script_has_a_stub() -> None:
    assert files() == sorted(NAMES) == sorted(CALLS)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_says_what_it_takes(name: str) -> None:
    text = (LUA / f"{name}.lua").read_text("utf-8")
    assert text.startswith(f"-- {name}.lua  ")
    script = load(name)
    assert script.keys == ("root",)
    assert script.argv


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_sends_what_the_header_names(name: str) -> None:
    call, counts = CALLS[name]
    shard = Transitions(Recorder(), Keys("ns", 0), SystemClock())  # type: ignore[arg-type]  # see Recorder
    stub = getattr(shard, name)
    assert set(call) <= set(inspect.signature(stub).parameters)

    async def send() -> None:
        await stub(**call)

    with pytest.raises(SentError) as sent:
        asyncio.run(send())
    script, keys, args = sent.value.args
    assert keys == ("{ns:0}",)
    named = words(script)
    assert len(args) == sum(counts.get(word, 1) for word in named), (named, args)
    offsets = [i for i, word in enumerate(named) if word == "offset"]
    assert offsets in ([], [0])
    if offsets:
        assert args[0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_script_reads_no_argument_beyond_its_header(name: str) -> None:
    text = (LUA / f"{name}.lua").read_text("utf-8")
    script = load(name)
    used = [int(n) for n in re.findall(r"ARGV\[(\d+)\]", text)]
    assert all(n <= len(script.argv) for n in used), (used, script.argv)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_touches_keys_by_their_builders_only(name: str) -> None:
    source = load(name).source
    calls = re.findall(r"redis\.call\(\s*'(\w+)'\s*,\s*([^,)]+)", source)
    # Of XGROUP and its like the first argument is a subcommand.
    plain = [key for _, key in calls if key.startswith("'") and not key[1:-1].isupper()]
    assert plain == []
    assert source.startswith("local ROOT = KEYS[1]\n")


@pytest.mark.anyio
@pytest.mark.parametrize("name", NAMES)
async def test_a_script_may_grow(shard: Shard, name: str) -> None:
    """Lua lets a script have 200 variables, and a function name 60 of them: one of these that has no room left stops all."""
    script, more = load(name), ", ".join(f"spare{n}" for n in range(6))
    call = shard.server.call
    for function in ("_begin", "_body"):
        opened = f"local function {function}()\n"
        assert script.source.count(opened) == script.library.count(opened) == 1
        grown = f"local {more}\n{opened}{more} = nil\n"
        assert await call("x", "SCRIPT", "LOAD", script.source.replace(opened, grown))
        if await call("x", "COMMAND", "INFO", "fcall") != [None]:
            assert await call(
                "x", "FUNCTION", "LOAD", "REPLACE", script.library.replace(opened, grown)
            )
