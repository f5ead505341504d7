"""What README and docs say is so: the programs run, the metrics and commands exist."""

import re
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from stepwell_engine.metrics import Metrics

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_program_of_the_readme_passes_its_own_test(tmp_path: Path) -> None:
    program, test = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "app.py").write_text(program)
    (tmp_path / "test_app.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b[1-9]\d* passed", done.stdout)


def test_the_program_of_the_readme_is_short() -> None:
    program = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len(program.splitlines()) <= 22


def test_every_metric_is_in_the_docs_and_the_other_way_round() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    real = set(re.findall(r"^# TYPE (\w+) ", generate_latest(registry).decode(), re.MULTILINE))
    real = {name for name in real if not name.endswith("_created")}
    told = re.findall(
        r"^\| (`stepwell_\w+`.*?) \|", (ROOT / "docs/running.md").read_text(), re.MULTILINE
    )
    assert {name for row in told for name in re.findall(r"`(\w+)`", row)} == real


def test_links_lead_somewhere() -> None:
    for file in (ROOT / "README.md", ROOT / "engine/README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
            assert (file.parent / target).exists(), (file.name, target)


def test_help_loads_neither_engine_nor_redis() -> None:
    code = (
        "import sys; from stepwell.cli.app import app;"
        "heavy = {'redis', 'stepwell_engine', 'stepwell_workers', 'celpy', 'prometheus_client'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
