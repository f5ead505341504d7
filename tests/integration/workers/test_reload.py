"""The reloader with a real child: a change starts it anew, an error waits for one."""

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell_workers.reload import Reloader
from stepwell_workers.signals import Shutdown

LIMIT = 30.0
HEAD = "import pathlib, signal\nopen('diary', 'a').write('{word}\\n')\n"


def source(word: str, *, ends: bool = False) -> str:
    return HEAD.format(word=word) + ("raise SystemExit(3)\n" if ends else "signal.pause()\n")


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not true():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


def test_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stepwell.reload")
    monkeypatch.chdir(tmp_path)
    app, diary = tmp_path / "app.py", tmp_path / "diary"
    app.write_text(source("one"))

    def words() -> list[str]:
        return diary.read_text().split() if diary.exists() else []

    async def main() -> None:
        with Shutdown() as shutdown:
            reloader = Reloader([sys.executable, str(app)], [tmp_path], interval=0.02)
            task = asyncio.create_task(reloader.run(shutdown))
            await until(lambda: words() == ["one"])
            app.write_text(source("second", ends=True))
            await until(lambda: words() == ["one", "second"])
            await until(lambda: "ended by exit code 3; waiting for a change" in caplog.text)
            app.write_text(source("third"))
            await until(lambda: words() == ["one", "second", "third"])
            shutdown.request()
            await asyncio.wait_for(task, LIMIT)

    asyncio.run(main())
    assert caplog.text.count("app.py changed: reloading") == 2
