"""The pool with real processes: restarts, signals, exit codes, and children whose parent dies."""

import asyncio
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepwell_workers.child import Child, describe
from stepwell_workers.pool import Pool
from stepwell_workers.signals import Shutdown
from stepwell_workers.uv import loop_factory

# A stand-in for a worker: says what happens to it as lines of the file it is given.
WORKER = """
import asyncio, os, pathlib, sys
from stepwell_workers.child import process_index, watch_parent
from stepwell_workers.signals import Shutdown
def say(word):
    with open(sys.argv[1], "a") as file:
        file.write(f"{word} {process_index()} {os.getpid()}\\n")
async def main():
    with Shutdown() as shutdown:
        watch_parent()
        say("up")
        await shutdown.drain.wait()
        say("drain")
        if sys.argv[2] == "slow":
            await shutdown.release.wait()
            say("release")
asyncio.run(main())
sys.exit(int(sys.argv[3]))
"""
LIMIT = 30.0


class Diary:
    """The file the children write to; waiting reads it again until it shows what it should."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self, word: str) -> list[list[str]]:
        lines = (line.split() for line in self.path.read_text().splitlines())
        return [line for line in lines if line[0] == word]

    async def count(self, word: str, count: int) -> list[list[str]]:
        async with asyncio.timeout(LIMIT):
            while len(self.lines(word)) < count:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)
        return self.lines(word)


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


def pool(
    diary: Diary,
    processes: int,
    *,
    kind: str = "quick",
    code: int = 0,
    kill_after: float | None = None,
) -> Pool:
    command = [sys.executable, "-c", WORKER, str(diary.path), kind, str(code)]
    return Pool(command, processes, first_pause=0.01, kill_after=kill_after)


def run(main: Coroutine[Any, Any, object], *, uv: bool = False) -> None:
    with asyncio.Runner(loop_factory=loop_factory() if uv else None) as runner:
        runner.run(main)


def test_starts_all_and_drains_all(diary: Diary) -> None:
    async def main() -> None:
        task = asyncio.create_task(pool(diary, 3).run())
        up = await diary.count("up", 3)
        assert sorted(line[1] for line in up) == ["0", "1", "2"]
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(task, LIMIT) == 0
        assert len(diary.lines("drain")) == 3

    run(main())


@pytest.mark.parametrize("uv", [False, True], ids=["asyncio", "uvloop"])
def test_second_signal_is_forwarded(diary: Diary, uv: bool) -> None:
    async def main() -> None:
        task = asyncio.create_task(pool(diary, 2, kind="slow").run())
        await diary.count("up", 2)
        os.kill(os.getpid(), signal.SIGINT)
        await diary.count("drain", 2)
        assert not task.done()
        os.kill(os.getpid(), signal.SIGINT)
        assert await asyncio.wait_for(task, LIMIT) == 0
        assert len(diary.lines("release")) == 2

    run(main(), uv=uv)


def test_a_dead_process_is_replaced(diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "stepwell.pool")

    async def main() -> None:
        with Shutdown() as shutdown:
            task = asyncio.create_task(pool(diary, 2).run(shutdown))
            up = await diary.count("up", 2)
            victim = next(line for line in up if line[1] == "1")
            os.kill(int(victim[2]), signal.SIGKILL)
            up = await diary.count("up", 3)
            assert up[2][1] == "1"
            assert up[2][2] != victim[2]
            shutdown.request()
            assert await asyncio.wait_for(task, LIMIT) == 0

    run(main())
    assert "worker process 1 ended by SIGKILL; starting it again" in caplog.text


def test_exit_code_of_a_bad_drain(diary: Diary) -> None:
    async def main() -> None:
        with Shutdown() as shutdown:
            task = asyncio.create_task(pool(diary, 2, code=7).run(shutdown))
            await diary.count("up", 2)
            shutdown.request()
            assert await asyncio.wait_for(task, LIMIT) == 7

    run(main())


def test_what_outlasts_the_grace_is_killed(diary: Diary) -> None:
    async def main() -> None:
        with Shutdown() as shutdown:
            task = asyncio.create_task(pool(diary, 1, kind="slow", kill_after=0.1).run(shutdown))
            await diary.count("up", 1)
            shutdown.request()
            assert await asyncio.wait_for(task, LIMIT) == 128 + signal.SIGKILL

    run(main())


def test_a_process_that_cannot_start_ends_the_pool() -> None:
    async def main() -> None:
        command = [sys.executable, "-c", "raise SystemExit(2)"]
        assert await asyncio.wait_for(Pool(command, 2).run(), LIMIT) == 2

    run(main())


def test_cancelled_pool_leaves_nothing(diary: Diary) -> None:
    async def main() -> None:
        with Shutdown() as shutdown:
            task = asyncio.create_task(pool(diary, 2, kind="slow").run(shutdown))
            up = await diary.count("up", 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, LIMIT)
            for line in up:
                with pytest.raises(ProcessLookupError):
                    os.kill(int(line[2]), 0)

    run(main())


def test_children_drain_when_the_parent_is_killed(diary: Diary) -> None:
    script = (
        "import asyncio, sys\nfrom stepwell_workers.pool import Pool\n"
        "asyncio.run(Pool(sys.argv[1:], 2).run())\n"
    )
    command = [sys.executable, "-c", WORKER, str(diary.path), "quick", "0"]
    with subprocess.Popen([sys.executable, "-c", script, *command]) as parent:
        run(diary.count("up", 2))
        descriptors = [os.pidfd_open(int(line[2])) for line in diary.lines("up")]
        parent.kill()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], LIMIT)[0], "a child outlived its parent"
        os.close(descriptor)
    assert len(diary.lines("drain")) == 2


def test_bad_arguments_and_words() -> None:
    with pytest.raises(ValueError, match="processes=0 must be 1 or more"):
        Pool(["x"], 0)
    assert [describe(code) for code in (3, -9, -250)] == ["exit code 3", "SIGKILL", "signal 250"]

    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await Child.start(["/nowhere/at/all"])

    run(main())
