"""The names by which servers know scripts."""

import re

from stepwell_engine.store.scripts import Script, load
from stepwell_engine.store.transitions import NAMES


def test_a_function_names_its_version() -> None:
    one, other = Script("x", "return 1"), Script("x", "return 2")
    assert one.function.startswith("stepwell_x_")
    assert one.function != other.function
    assert one.function != Script("x", "return 1", flags=("no-writes",)).function
    assert one.library.startswith(f"#!lua name={one.function}\n")
    assert one.sha != other.sha


def test_headers_are_read() -> None:
    assert load("sweep").flags == ("allow-oom",)
    assert load("awaited").flags == ("no-writes",)
    assert load("lease").flags == ()
    assert load("lease").keys == ("root",)


def test_scripts_that_only_read_say_so() -> None:
    reads = {
        *[
            "EXISTS",
            "GET",
            "HGET",
            "HGETALL",
            "HKEYS",
            "HMGET",
            "TIME",
            "ZCOUNT",
            "ZRANGE",
            "ZRANGEBYLEX",
            "ZRANK",
        ]
    }
    for name in NAMES:
        called = set(re.findall(r"redis\.call\('(\w+)'", load(name).source))
        assert (called <= reads) == ("no-writes" in load(name).flags), (name, called - reads)
