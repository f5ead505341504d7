"""What of a script is made once, and what each call sets. That servers do so: tests/integration/store/test_functions.py."""

from stepwell_engine.store.programs import evaluated, library, program
from stepwell_engine.store.sources import statements


def made(definitions: str, script: str = "return 1") -> tuple[str, str, str]:
    """What stands before `_begin`, what is in it, and what is in `_body`."""
    text = program(statements(definitions), statements(script))
    before, _, rest = text.partition("local function _begin()\n")
    begin, _, body = rest.partition("end\nlocal function _body()\n")
    return before, begin, body.removesuffix("\nend")


def test_functions_and_constants_are_made_once() -> None:
    before, begin, _ = made("local LIMIT = 5 -- ms\nlocal WORD = 'a'\nlocal function f() end")
    assert before == "local LIMIT = 5 -- ms\nlocal WORD = 'a'\nlocal function f() end\n"
    assert begin == ""


def test_variables_are_set_by_each_call_in_order() -> None:
    before, begin, _ = made("local A, B = {}, 0\nlocal C\ndo\n  C = B\nend\nlocal D = C")
    assert before == "local A, B\nlocal C\nlocal D\n"
    assert begin == "A, B = {}, 0\nC = nil\ndo\n  C = B\nend\nD = C\n"


def test_what_something_assigns_to_is_no_constant() -> None:
    for change in (
        "local function f() SEEN = SEEN + 1 end",
        "local function f() SEEN, other = 1, 2 end",
        "local function f()\n  if SEEN == 0 then\n    SEEN = 1\n  end\nend",
    ):
        assert made(f"local SEEN = 0\n{change}")[1] == "SEEN = 0\n", change
    assert made("local SEEN = 0\nlocal function f() return SEEN == 1 end")[1] == ""
    assert made("local SEEN = 0", "SEEN = 1")[1] == "SEEN = 0\n"


def test_a_function_declared_before_it_is_defined_stays() -> None:
    before, begin, _ = made(
        "local f, x -- later\nlocal function g() return f() end\nfunction f() end"
    )
    assert before.startswith("local f, x\n")
    assert begin == "x = nil\n"


def test_what_a_script_shares_with_its_functions_is_theirs() -> None:
    script = "local shared, own = ARGV[1], 2\nlocal mine = 3\nlocal function f() return shared end\nreturn f() + mine"
    before, _, body = made("", script)
    assert before == "local shared, own\nlocal function f() return shared end\n"
    assert body == "shared, own = ARGV[1], 2\nlocal mine = 3\nreturn f() + mine"


def test_a_table_of_functions_is_made_with_them() -> None:
    before, _, body = made("", "local ops = {}\nfunction ops.a() end\nops[ARGV[1]]()")
    assert before == "local ops = {}\nfunction ops.a() end\n"
    assert body == "ops[ARGV[1]]()"


def test_both_forms_begin_before_they_do_something() -> None:
    assert evaluated("…") == "local ROOT = KEYS[1]\n…\n_begin()\nreturn _body()"
    text = library("stepwell_x", "…")
    assert text.startswith("#!lua name=stepwell_x\n")
    assert text.endswith("redis.register_function('stepwell_x', _call)\n")
