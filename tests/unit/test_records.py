"""The public records: statuses, and that their table is the one the scripts assert."""

import re
from importlib import resources

import pytest

from stepwell.records import LEGAL, ErrorInfo, RunStatus, run_status


def test_the_scripts_assert_the_same_transitions() -> None:
    lua = resources.files("stepwell_engine.store") / "lua" / "lib" / "run.lua"
    table = re.search(r"local LEGAL = \{\n(.*?)\n\}", lua.read_text("utf-8"), re.DOTALL)
    assert table is not None
    rows = re.findall(r"^  (\w) = \{ (.*?) \},$", table[1], re.MULTILINE)
    assert {state: frozenset(re.findall(r"(\w) = true", row)) for state, row in rows} == LEGAL


@pytest.mark.parametrize(
    ("letter", "place", "status"),
    [
        ("q", "q", "queued"),
        ("q", "d", "scheduled"),
        ("r", "q", "queued"),
        ("r", "l", "running"),
        ("r", "p", "waiting"),
        ("r", "d", "waiting"),
        ("x", "l", "cancelling"),
        ("c", "", "completed"),
        ("f", "", "failed"),
        ("k", "", "cancelled"),
    ],
)
def test_a_status_is_told_by_letter_and_place(letter: str, place: str, status: str) -> None:
    assert run_status(letter, place) == status
    assert run_status(letter, place).ended == (letter in "cfk")


def test_every_status_can_be_reached() -> None:
    pairs = [(letter, place) for letter in "qrxcfk" for place in "qdlp"]
    assert {run_status(*pair) for pair in pairs} == set(RunStatus)


def test_an_error_reads_well() -> None:
    assert str(ErrorInfo(name="ValueError", message="no")) == "ValueError: no"
    assert str(ErrorInfo(name="KeyError")) == "KeyError"
