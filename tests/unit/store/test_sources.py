"""Lua sources in statements, and what scripts use of libraries."""

from importlib import resources

import pytest

from stepwell_engine.store.sources import needed, read, statements
from stepwell_engine.store.transitions import NAMES

LIBRARY = """-- What a library may hold.
--- include other
local COUNT = 0
local NAMES = {
  a = 1,
}
local late, later -- assigned below
-- Used by `second` only.
local function first(x) return COUNT + x end
local function second(x)
  return first(x) + late(x)
end

function late(x) return NAMES[x] end
do
  COUNT = 1
end
"""


def test_a_source_is_cut_into_statements() -> None:
    found = [(s.names, s.value, s.is_function) for s in statements(LIBRARY)]
    assert found == [
        (("COUNT",), "0", False),
        (("NAMES",), "{\n  a = 1,\n}", False),
        (("late", "later"), "", False),
        (("first",), None, True),
        (("second",), None, True),
        (("late",), None, True),
        ((), None, False),
    ]


def test_what_goes_on_belongs_to_its_statement() -> None:
    script = "while at do\n  at = next()\nend\nif a then\n  b()\nelse\n  c()\nend\ncall(\n  d\n)\nrepeat\n  e()\nuntil f\nended()"
    assert [s.text.split("\n")[0] for s in statements(script)] == [
        "while at do",
        "if a then",
        "call(",
        "repeat",
        "ended()",
    ]


def test_a_definition_is_needed_when_it_is_used_at_any_remove() -> None:
    names = {name for s in needed(read("answered")) for name in s.names}
    assert {"let_go", "enqueue", "show_all", "NOW"} <= names
    assert "register_cancels" not in names


@pytest.mark.parametrize("name", ["fanout", "lease", "resolve", "commit", "due"])
def test_no_script_has_a_function_that_it_does_not_use(name: str) -> None:
    text, found = read(name), needed(read(name))
    for function in (s for s in found if s.is_function):
        others = [s.text for s in found if s is not function]
        assert any(function.names[0] in other for other in [text, *others]), function.names


def test_libraries_have_definitions_only() -> None:
    lib = resources.files("stepwell_engine.store") / "lua" / "lib"
    limits = resources.files("stepwell_engine") / "limits"
    files = [f for place in (lib, limits) for f in place.iterdir() if f.name.endswith(".lua")]
    assert len(files) > 20
    for file in files:
        for statement in statements(file.read_text("utf-8")):
            assert statement.names or statement.text.startswith("do\n"), (file.name, statement)


@pytest.mark.parametrize("name", NAMES)
def test_statements_lose_nothing_but_comments(name: str) -> None:
    lines = [line for line in read(name).splitlines() if line and not line.startswith("--")]
    assert "\n".join(s.text for s in statements(read(name))).splitlines() == lines
