"""The names by which servers know scripts."""

from stepwell_engine.store.scripts import Script, load


def test_a_function_names_its_version() -> None:
    one, other = Script("x", "return 1"), Script("x", "return 2")
    assert one.function.startswith("stepwell_x_")
    assert one.function != other.function
    assert one.library.startswith(f"#!lua name={one.function}\n")
    assert one.sha != other.sha


def test_headers_are_read() -> None:
    assert load("awaited").keys == ("root",)
    assert load("awaited").argv == ("name...",)
