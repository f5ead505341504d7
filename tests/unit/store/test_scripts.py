"""Scripts carry only the definitions that they use."""

import re

from stepwell_engine.store.scripts import assemble, load

LIBRARY = """-- What a library may hold.
--- include other
local COUNT = 0
local NAMES = {
  a = 1,
}
local late -- assigned below
-- Used by `second` only.
local function first(x) return COUNT + x end
local function second(x)
  return first(x) + late(x)
end

function late(x) return NAMES[x] end
local function alone() return 1 end
do
  COUNT = 1
end
"""


def test_a_definition_stays_when_it_is_used_at_any_remove() -> None:
    text = assemble({"library": LIBRARY}, "return second(2)")
    for name in ("COUNT = 0", "NAMES = {", "a = 1", "late -- assigned", "function late", "first"):
        assert name in text
    assert "alone" not in text
    assert "--- include" not in text


def test_what_is_not_used_goes_and_blocks_stay() -> None:
    text = assemble({"library": LIBRARY}, "return 1")
    assert "function" not in text
    assert "COUNT = 1" in text


def test_flow_control_waits_until_it_is_called() -> None:
    text = assemble({"limits/some": LIBRARY}, "return second(2)")
    doors = text.index("local function open_limits()")
    assert doors < text.index("local NAMES = {") < text.index("local function first(x)")
    assert "second = function(...) second = open_limits() return second(...) end" in text
    assert text.startswith("local second\n")


def test_what_only_flow_control_shares_waits_with_it() -> None:
    text = assemble({"limits/some": LIBRARY}, "COUNT = second(2)")
    doors = text.index("local function open_limits()")
    assert text.index("local COUNT = 0") < doors < text.index("local NAMES = {")


def test_no_script_defines_a_function_it_does_not_use() -> None:
    for name in ("fanout", "lease", "resolve", "commit", "due"):
        source = load(name).source
        for function in re.findall(r"^local function (\w+)", source, re.MULTILINE):
            assert len(re.findall(rf"\b{function}\b", source)) > 1, (name, function)
