"""The public types as users' checkers see them: mypy and pyright, on the examples beside this file."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXAMPLES = sorted(HERE.glob("example_*.py"))


@pytest.mark.timeout(300)  # the first run has no cache, and pyright may have to fetch its engine
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_examples_pass(checker: str) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: pip install --group lint")
    command = [sys.executable, "-m", checker, *map(str, EXAMPLES)]
    done = subprocess.run(
        command, cwd=HERE.parents[1], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert EXAMPLES
