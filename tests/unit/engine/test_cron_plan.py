"""Which ticks run, what they start, and what is remembered: no server, no clock."""

from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest

from stepwell.events import decode_event
from stepwell.ids import is_ulid, shard_of_run, ulid_ms
from stepwell_engine.cron_plan import (
    MOST_MISSED,
    TickPlan,
    crons,
    handled_ms,
    jitter,
    last_run,
    plan_ticks,
)
from stepwell_engine.triggers import RegisteredFunction

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOON = int(datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp() * 1000)


def function(*triggers: dict[str, Any], fn: str = "f", shard: int = 0) -> RegisteredFunction:
    return RegisteredFunction("shop", fn, "7", shard, {"triggers": list(triggers)})


def cron(text: str, **more: Any) -> dict[str, Any]:
    return {"cron": text, "timezone": None, "jitter": None, "catchup": "last", **more}


def at(ms: int) -> bytes:
    return b"%013d" % ms


def data(plan: TickPlan, index: int = 0) -> dict[str, Any]:
    blob = plan.runs[index].blob
    found: dict[str, Any] = decode_event(blob[26:], blob[:26].decode(), 0).to_dict()
    return found


def test_what_is_seen_first_has_missed_nothing():
    plan = plan_ticks(function(cron("0 * * * *", catchup="all")), {}, NOON + 5)
    assert plan.after == {"UTC 0 * * * *": at(NOON + 5)}
    assert (plan.next_ms, plan.fired, plan.skipped, plan.runs) == (NOON + HOUR, [], 0, [])


def test_a_tick_starts_a_run_with_its_event():
    f = function(cron("0 * * * *"), shard=3)
    plan = plan_ticks(f, {"UTC 0 * * * *": at(NOON - 5)}, NOON + 2)
    (run,) = plan.runs
    assert is_ulid(run.run_id)
    assert (ulid_ms(run.run_id), shard_of_run(run.run_id)) == (NOON, 3)
    assert (run.number, run.lane, run.start_ms, run.created_ms) == ("7", "shop", 0, NOON)
    assert plan.after == {"UTC 0 * * * *": at(NOON) + run.run_id.encode()}
    assert (handled_ms(plan.after["UTC 0 * * * *"]), plan.next_ms) == (NOON, NOON + HOUR)
    assert last_run(plan.after["UTC 0 * * * *"]) == run.run_id
    event = data(plan)
    assert event["name"] == "inngest/scheduled.timer"
    assert event["ts"] == NOON
    assert event["data"] == {
        "cron": "0 * * * *",
        "scheduledAt": "2026-06-01T12:00:00Z",
        "fireAt": "2026-06-01T12:00:00Z",
    }
    ((event_id, record),) = plan.records
    assert (event_id, ulid_ms(event_id)) == (run.blob[:26].decode(), NOON)
    assert msgpack.unpackb(record)["plan"] == [["shop", "f", "started", run.run_id, 3]]
    # Worked out again, by whomever, it is the same.
    assert plan_ticks(f, {"UTC 0 * * * *": at(NOON - 5)}, NOON + 900).runs == plan.runs


def test_runs_and_events_differ_by_function_and_tick():
    state = {"UTC 0 * * * *": at(NOON - 5 * HOUR)}
    plans = [
        plan_ticks(function(cron("0 * * * *", catchup="all"), fn=fn), state, NOON) for fn in "fg"
    ]
    ids = [r.run_id for p in plans for r in p.runs] + [i for p in plans for i, _ in p.records]
    assert len(set(ids)) == len(ids) == 20


@pytest.mark.parametrize(
    ("catchup", "late", "fired", "skipped"),
    [
        ("none", 59_999, [0], 2),
        ("none", 60_000, [], 3),
        ("last", 59_999, [0], 2),
        ("last", 59 * MINUTE, [0], 2),
        ("all", 59 * MINUTE, [-2, -1, 0], 0),
    ],
)
def test_catching_up(catchup, late, fired, skipped):
    f = function(cron("0 * * * *", catchup=catchup))
    plan = plan_ticks(f, {"UTC 0 * * * *": at(NOON - 3 * HOUR) + b"R" * 26}, NOON + late)
    assert plan.fired == [NOON + n * HOUR for n in fired]
    assert [run.created_ms for run in plan.runs] == plan.fired
    assert plan.skipped == skipped
    (value,) = plan.after.values()
    # What was left out is handled too, and the last run that there was is still known.
    assert handled_ms(value) == NOON
    assert last_run(value) == (plan.runs[-1].run_id if fired else "R" * 26)
    assert plan.next_ms == NOON + HOUR


def test_all_of_many_are_made_up_for_in_parts_and_the_oldest_of_too_many_are_not():
    f = function(cron("* * * * *", catchup="all"))
    state, calls = {"UTC * * * * *": at(NOON - 30 * DAY)}, 0
    fired: list[int] = []
    while True:
        plan = plan_ticks(f, state, NOON)
        state, fired, calls = plan.after, fired + list(plan.fired), calls + 1
        if plan.next_ms > NOON:
            break
    assert fired == [NOON - n * MINUTE for n in range(MOST_MISSED - 1, -1, -1)]
    assert calls > 10


def test_long_absence_is_cheap_to_look_back_on():
    f = function(cron("* * * * *", catchup="last"))
    plan = plan_ticks(f, {"UTC * * * * *": at(0)}, NOON)
    assert plan.fired == [NOON]
    assert plan.skipped == MOST_MISSED - 1


def test_two_crons_at_one_tick_are_one_run_of_the_first():
    f = function(
        cron("*/30 * * * *"), cron("0 12 * * *", jitter=30_000), cron("TZ=UTC */30 * * * *")
    )
    state = {"UTC */30 * * * *": at(NOON - 1), "UTC 0 12 * * *": at(NOON - 1)}
    plan = plan_ticks(f, state, NOON)
    (run,) = plan.runs
    assert data(plan)["data"]["cron"] == "*/30 * * * *"
    assert plan.after == dict.fromkeys(state, at(NOON) + run.run_id.encode())
    assert plan.next_ms == NOON + 30 * MINUTE


def test_a_cron_that_went_is_forgotten_and_a_new_one_begins():
    state = {"UTC 0 * * * *": at(NOON - HOUR - 1), "UTC 5 * * * *": at(NOON - DAY)}
    plan = plan_ticks(function(cron("0 * * * *"), cron("@daily")), state, NOON + 1)
    assert set(plan.after) == {"UTC 0 * * * *", "UTC @daily"}
    assert plan.after["UTC @daily"] == at(NOON + 1)
    gone = plan_ticks(function({"event": "a/b", "expression": None}), state, NOON)
    assert (gone.after, gone.runs) == ({}, [])


def test_jitter_is_within_its_range_the_same_for_all_and_spreads():
    f, g = function(cron("* * * * *")), function(cron("* * * * *"), fn="g")
    found = [jitter(f, 30_000, NOON + n * MINUTE) for n in range(500)]
    assert found == [jitter(f, 30_000, NOON + n * MINUTE) for n in range(500)]
    assert 0 <= min(found) < 2_000
    assert 28_000 < max(found) <= 30_000
    assert len(set(found)) > 450
    assert found != [jitter(g, 30_000, NOON + n * MINUTE) for n in range(500)]
    assert jitter(f, 0, NOON) == 0
    assert {jitter(f, 1, NOON + n * MINUTE) for n in range(50)} == {0, 1}


def test_a_jittered_run_is_created_at_its_tick_and_starts_later():
    f = function(cron("0 * * * *", jitter=300_000))
    plan = plan_ticks(f, {"UTC 0 * * * *": at(NOON - 1)}, NOON)
    delay = jitter(f, 300_000, NOON)
    assert delay
    (run,) = plan.runs
    assert (run.created_ms, run.start_ms) == (NOON, NOON + delay)
    event = data(plan)
    fire = datetime.fromisoformat(event["data"]["fireAt"])
    assert fire.timestamp() * 1000 == event["ts"] == NOON + delay
    assert event["data"]["scheduledAt"] == "2026-06-01T12:00:00Z"


def test_what_cannot_be_read_here_is_left_as_it_is():
    f = function(cron("0 * * * *"), cron("0 * * * *", timezone="Mars/Phobos"), cron("soon"))
    state = {"UTC 0 * * * *": at(NOON - 1), "Mars/Phobos 0 * * * *": at(5)}
    plan = plan_ticks(f, state, NOON)
    assert plan.fired == [NOON]
    assert plan.after["Mars/Phobos 0 * * * *"] == at(5)
    assert plan.after["UTC soon"] == at(NOON)
    assert plan.next_ms == NOON + MINUTE  # perhaps another coordinator can
    assert [c.schedule is None for c in crons(f.config)] == [False, True, True]
