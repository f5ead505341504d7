"""Outcomes that the scripts decided, as people read them; skips as events."""

import msgpack
import pytest

from stepwell.events import Event, encode_event
from stepwell.records import EventOutcome
from stepwell_engine import views
from stepwell_engine.ends import skipped
from stepwell_engine.entries import SKIPPED, SKIPPED_EVENT, Batch
from stepwell_engine.registry import Registry
from stepwell_engine.triggers import RegisteredFunction

RUN, OTHER = "01J" + "0" * 23, "01J" + "1" * 23
PLANNED = EventOutcome(app_id="shop", fn_id="f", outcome="started", run_id=RUN)


@pytest.mark.parametrize(
    ("text", "window", "outcome", "run", "reason"),
    [
        (None, None, "started", RUN, f"started run {RUN}"),
        (b"rate_limited", None, "rate_limited", None, "the rate limit was reached"),
        (f"duplicate {OTHER}".encode(), None, "duplicate", OTHER, f"run {OTHER} has the same idempotency key and began within 24 hours"),
        (f"batched {OTHER}".encode(), None, "batched", OTHER, f"part of the batch of run {OTHER}"),
        (f"batched {OTHER}".encode(), b"open dqpsRn5_5SfUbVD8", "batched", OTHER, f"part of the batch of run {OTHER}"),
        (f"debounced {OTHER}".encode(), f"skipped {RUN}".encode(), "skipped", RUN,
         f"run {RUN} has the same singleton key and had not ended when the debounce ended"),
    ],
)  # fmt: skip
def test_an_outcome_is_what_the_scripts_made_of_it(text, window, outcome, run, reason):
    found = views.decided(PLANNED, text, window)
    assert (found.outcome, found.run_id, found.reason) == (outcome, run, reason)


def test_an_outcome_of_a_later_version_is_shown_as_it_is():
    assert views.decided(PLANNED, b"frozen").reason == "frozen"


class Functions(Registry):
    """One function, whatever its number."""

    def __init__(self):
        pass

    def numbered(self, number):
        return RegisteredFunction("shop", "f", number, 0, {})


def row(extra):
    blob = RUN.encode() + encode_event(Event("shop/order", {"n": 1}))
    return [b"1-1", [b"k", b"s", b"i", b"", b"n", SKIPPED_EVENT.encode(), b"t", b"1700000000000000", b"d", blob, b"x", extra]]  # fmt: skip


def test_a_skip_becomes_an_event():
    (entry,) = Batch(0, [row(msgpack.packb([OTHER, "3", "skipped", RUN]))]).entries
    assert entry.kind == SKIPPED
    whole = skipped(entry, Functions())
    data = whole.decode().data
    assert (whole.id[10:24], whole.id[24:]) == (OTHER[10:24], "F3")
    assert (data["function_id"], data["fn_id"], data["reason"]) == ("shop-f", "f", "skipped")
    assert (data["run_id"], data["event"]["data"]) == (RUN, {"n": 1})


def test_a_skip_that_says_nothing_is_an_error():
    (entry,) = Batch(0, [row(b"")]).entries
    with pytest.raises((ValueError, TypeError)):
        skipped(entry, Functions())
