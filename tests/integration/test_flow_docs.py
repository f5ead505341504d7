"""The pictures of docs/flow are of real runs, and in those each option keeps its rule (semantics §6, §3)."""

import importlib.util
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio
FLOW = Path(__file__).parents[2] / "docs" / "flow"


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("flow_pictures", FLOW / "pictures.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


pictures = _module()


def _outcomes(trace) -> list[str]:
    return [each.outcome for each in trace.sent]


def _at_once(runs, moment) -> int:
    return sum(
        1
        for r in runs
        if r.begun is not None and r.begun <= moment and (r.ended is None or moment < r.ended)
    )


def concurrency(trace) -> None:
    for key in ("a", "b"):
        runs = trace.of(key).runs
        assert max(_at_once(runs, minute) for minute in range(50)) == 2
    assert trace.of("a").starts == [0, 0, 10, 10, 20, 20, 30]
    assert trace.of("b").starts == [5, 5]  # another key's queue is nothing to it


def throttle(trace) -> None:
    starts = trace.starts
    assert len(starts) == 12
    for i, first in enumerate(starts):
        for j in range(i, len(starts)):
            assert j - i + 1 <= 3 + (starts[j] - first) // 10
    assert starts[:4] == [0, 0, 0, 10]
    assert starts[-4:] == [90, 90, 90, 100]


def rate_limit(trace) -> None:
    for first in trace.starts:
        assert sum(1 for start in trace.starts if first <= start < first + 60) <= 3
    dropped = [each for each in trace.sent if each.outcome == "rate_limited"]
    assert len(dropped) + len(trace.runs) == len(trace.sent)
    for each in dropped:
        assert sum(1 for start in trace.starts if each.minute - 60 < start <= each.minute) == 3


def idempotency(trace) -> None:
    for key in ("a", "b"):
        starts = trace.of(key).starts
        assert all(later - first >= 24 * 60 for first, later in pairwise(starts))
    assert trace.of("a").starts == [0, 25 * 60, 50 * 60]
    assert set(_outcomes(trace)) == {"started", "duplicate"}


def debounce(trace) -> None:
    assert trace.starts == [18, 70, 98]  # ten quiet minutes; thirty after the first; ten again
    assert set(_outcomes(trace)) == {"debounced"}
    assert [run.events for run in trace.runs] == [1, 1, 1]


def batch(trace) -> None:
    assert [(run.begun, run.events) for run in trace.runs] == [(4, 5), (30, 3), (55, 1)]
    assert set(_outcomes(trace)) == {"batched"}


def priority(trace) -> None:
    assert [run.key for run in trace.runs] == ["free"] * 2 + ["pro"] * 2 + ["free"] * 4
    assert trace.of("pro").starts == [20, 30]


def singleton(trace) -> None:
    assert _outcomes(trace) == ["started", "skipped", "skipped", "started", "skipped", "started"]
    assert max(_at_once(trace.runs, minute) for minute in range(80)) == 1


def singleton_cancel(trace) -> None:
    assert [run.status for run in trace.runs] == [
        "cancelled", "cancelled", "completed", "cancelled", "completed",
    ]  # fmt: skip
    assert trace.starts == [0, 5, 15, 40, 55]
    assert max(_at_once(trace.runs, minute) for minute in range(80)) == 1


def cron(trace) -> None:
    # The ticks of minutes 45 to 90 were missed: the newest is made up for as soon as somebody is there.
    assert trace.starts == [15, 30, 100, 105, 120, 135]


def cancel(trace) -> None:
    assert [(r.key, r.status, r.ended) for r in trace.runs] == [
        ("a", "completed", 60), ("b", "cancelled", 20), ("c", "completed", 60),
    ]  # fmt: skip


def timeouts(trace) -> None:
    assert [(r.created, r.begun, r.ended, r.status) for r in trace.runs] == [
        (0, 0, 20, "completed"),
        (5, None, 15, "cancelled"),
        (15, 20, 50, "cancelled"),
        (55, 55, 60, "completed"),
    ]


RULES: dict[str, Callable[[Any], None]] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        concurrency, throttle, rate_limit, idempotency, debounce, batch, priority, singleton,
        singleton_cancel, cron, cancel, timeouts,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", list(pictures.SCENARIOS))
async def test_the_rule_holds_and_the_picture_is_of_it(name: str) -> None:
    scenario = pictures.SCENARIOS[name]
    trace = await pictures.trace(scenario)
    RULES[name](trace)
    assert pictures.svg(scenario, trace) == (FLOW / f"{name}.svg").read_text()


def test_every_picture_is_in_a_page_and_pages_are_short() -> None:
    pages = {page.name: page.read_text() for page in FLOW.glob("*.md")}
    assert all(len(text.splitlines()) <= 80 for text in pages.values())
    shown = {name for text in pages.values() for name in re.findall(r"\((\S+)\.svg\)", text)}
    assert shown == set(pictures.SCENARIOS)
    linked = set(re.findall(r"\((\w[\w-]*\.md)\)", pages["README.md"]))
    assert linked == set(pages) - {"README.md"}


@pytest.mark.parametrize("page", sorted(path.name for path in FLOW.glob("*.md")))
def test_examples_are_accepted(page: str) -> None:
    """Each block defines its functions: the options in it are the ones there are."""
    import stepwell

    for code in re.findall(r"```python\n(.*?)```", (FLOW / page).read_text(), re.DOTALL):
        scope = {name: getattr(stepwell, name) for name in stepwell.__all__}
        scope["client"] = client = stepwell.Client(app_id="docs")
        exec(code, scope)
        assert client.functions
