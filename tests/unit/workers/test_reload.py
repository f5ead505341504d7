"""What a scan sees and how changes read."""

import os
from pathlib import Path

import pytest

from stepwell_workers.reload import Changes, diff, scan


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_scan_finds_sources_and_skips_the_rest(tmp_path: Path) -> None:
    app = touch(tmp_path / "app.py")
    deep = touch(tmp_path / "pkg/sub/deep.py")
    for skipped in (".venv/x.py", "node_modules/x.py", "pkg/__pycache__/x.py", "notes.txt"):
        touch(tmp_path / skipped)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nothing.py")
    assert set(scan([tmp_path])) == {app, deep}
    assert scan([tmp_path / "absent"]) == {}


def test_diff(tmp_path: Path) -> None:
    app, old = touch(tmp_path / "app.py"), touch(tmp_path / "old.py")
    before = scan([tmp_path])
    assert diff(before, scan([tmp_path])) is None
    os.utime(app, ns=(1, 1))
    old.unlink()
    new = touch(tmp_path / "new.py")
    assert diff(before, scan([tmp_path])) == Changes([app], [new], [old])


def test_same_time_other_size_is_a_change(tmp_path: Path) -> None:
    app = touch(tmp_path / "app.py")
    os.utime(app, ns=(1, 1))
    before = scan([tmp_path])
    app.write_text("x = 1\n")
    os.utime(app, ns=(1, 1))
    assert diff(before, scan([tmp_path])) == Changes([app], [], [])


def test_changes_read_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    many = [tmp_path / f"{name}.py" for name in "abcde"]
    assert str(Changes(many, [tmp_path / "new.py"], [Path("/elsewhere/old.py")])) == (
        "a.py, b.py, c.py and 2 more changed; new.py added; /elsewhere/old.py removed"
    )
