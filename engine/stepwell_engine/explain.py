"""Why a run is not running now, as one sentence. Pure: what was read (explain_read.py) → what is told."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from stepwell.durations import format_duration
from stepwell.records import Explanation, RunStatus, StepRecord, StepStatus
from stepwell.serde import to_json
from stepwell.texts import one_line
from stepwell_engine.explain_facts import Facts, Gate, Holder, Place, Service
from stepwell_engine.views import moment

_SHOWN: Final = 3
_LONGEST: Final = 100
"""Characters of a key's value that a sentence shows."""


class Told(NamedTuple):
    """A part of the sentence, without its subject."""

    reason: str
    text: str
    until: datetime | None = None
    runs: tuple[str, ...] = ()
    because: Explanation | None = None


def tell(facts: Facts) -> Explanation:
    """The explanation.

    >>> tell(facts).text
    "Run 01J… of shop/ship sleeps in step 'nap' until 2030-01-02 09:00:00 UTC (in 23h)."
    """
    run = facts.run
    told = _told(facts)
    text = one_line(f"{subject(run.id, run.app_id, run.fn_id)} {told.text}{_ending(facts)}.")
    return Explanation(
        run_id=run.id,
        function_id=run.function_id,
        status=run.status,
        reason=told.reason,
        text=text,
        until=told.until,
        runs=told.runs,
        because=told.because,
    )


def subject(run_id: str, app: str, fn: str) -> str:
    """How a sentence names a run at its beginning."""
    return f"Run {run_id} of {app}/{fn}"


def at(ms: float, now_ms: float) -> str:
    """A moment as the sentences write it: `2030-01-08 00:00:05 UTC (in 7d)`."""
    rest = round((ms - now_ms) / 1000) * 1000
    far = f"in {_rough(rest)}" if rest > 0 else f"{_rough(-rest)} ago" if rest < 0 else "now"
    return f"{moment(ms):%Y-%m-%d %H:%M:%S} UTC ({far})"


def count(n: int, word: str) -> str:
    """`1 run`, `1,200 runs`."""
    return f"{n:,} {word}" + ("" if n == 1 else "s")


def text_of(value: object) -> str:
    """A key's value as it is read in an event; a long one is cut."""
    plain = to_json(value)
    if isinstance(plain, str):
        return f'"{one_line(plain, _LONGEST)}"'
    return one_line(str(plain).replace("'", '"'), _LONGEST)


def _rough(ms: int) -> str:
    """A length in its two largest units."""
    for unit in (86_400_000, 3_600_000, 60_000):
        if ms >= unit * 2:
            lesser = {86_400_000: 3_600_000, 3_600_000: 60_000, 60_000: 1_000}[unit]
            return format_duration(ms // lesser * lesser)
    return format_duration(ms)


def _told(facts: Facts) -> Told:
    run = facts.run
    if run.status.ended:
        return _ended(facts)
    if run.status is RunStatus.CANCELLING:
        return _cancelling(facts)
    if run.status is RunStatus.RUNNING:
        return _running(facts)
    root = facts.places.get("")
    if root is not None:
        return _queued(facts, "", root)
    if "" in facts.due:
        return _scheduled(facts, facts.due[""])
    return _parked(facts)


def _ended(facts: Facts) -> Told:
    run = facts.run
    assert run.ended_at is not None
    when = at(run.ended_at.timestamp() * 1000, facts.now_ms)
    verb = "was cancelled" if run.status is RunStatus.CANCELLED else str(run.status)
    why = ""
    if run.error is not None:
        cancelled = run.status is RunStatus.CANCELLED
        why = f": {run.error.message if cancelled else run.error}".partition("\n")[0].rstrip(".")
    return Told(str(run.status), f"{verb} at {when}{why}")


def _cancelling(facts: Facts) -> Told:
    run = facts.run
    why = f" ({run.error.message})" if run.error else ""
    end = facts.due.get("!")
    rest = (
        "" if end is None else f" has until {at(end, facts.now_ms)} to stop it, then it ends anyway"
    )
    worker = f": worker {run.worker}" if run.worker else ": its worker"
    return Told("cancelling", f"is being cancelled{why}{worker}{rest}", _moment(end))


def _running(facts: Facts) -> Told:
    run = facts.run
    since = "" if facts.since_ms is None else f" since {at(facts.since_ms, facts.now_ms)}"
    text = f"is running on worker {run.worker}{since}"
    if facts.worker_alive:
        return Told("running", text)
    end = (
        ""
        if facts.lease_ms is None
        else f", and goes to another when its lease ends at {at(facts.lease_ms, facts.now_ms)}"
    )
    return Told(
        "running", f"{text}, but that worker is not heard of any more{end}", _moment(facts.lease_ms)
    )


def _scheduled(facts: Facts, due: float) -> Told:
    when = at(due, facts.now_ms)
    run = facts.run
    if facts.held:
        return Told(
            "held",
            "is held before its start: an event that its cancel= names was accepted before it was created, "
            "and a coordinator has to find out whether that one cancels it",
        )
    if facts.due.get("<", facts.now_ms + 1) <= facts.now_ms:
        return Told("scheduled", "may not begin any more, and a coordinator has to cancel it")
    if run.status is RunStatus.SCHEDULED:
        return Told(
            "scheduled", f"is scheduled by its event's ts: it starts at {when}", moment(due)
        )
    failed = facts.failed.get("", 0)
    if not failed:
        return Told("scheduled", f"goes on at {when}", moment(due))
    last = f" after {run.attempts[-1].error}".partition("\n")[0] if run.attempts else ""
    text = (
        f"retries at {when}{last} (attempt {failed + 1} of {facts.attempts} of the function's body)"
    )
    return Told("retry", text, moment(due))


# --- what a parked run waits for ---


def _parked(facts: Facts) -> Told:
    open_ = [step for step in facts.run.steps if step.ended_at is None]
    told = [_step(facts, step) for step in open_]
    if not told:
        return Told("steps", "is between two steps: look again")
    if len(told) == 1:
        return told[0]
    dues = [one.until for one in told if one.until is not None]
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    text = (
        f"waits for {len(told)} steps at once: " + "; ".join(t.text for t in told[:_SHOWN]) + more
    )
    reasons = {one.reason for one in told}
    runs = tuple(run for one in told for run in one.runs)
    because = next((one.because for one in told if one.because), None)
    return Told(
        reasons.pop() if len(reasons) == 1 else "steps",
        text,
        min(dues, default=None),
        runs,
        because,
    )


def _step(facts: Facts, step: StepRecord) -> Told:
    name = f"step {step.id!r}"
    until = (
        "" if step.due_at is None else f" until {at(step.due_at.timestamp() * 1000, facts.now_ms)}"
    )
    if step.status is StepStatus.RUNNING:
        return Told("running", f"has {name} running on a worker")
    place = facts.places.get(step.key)
    if place is not None:
        return _queued(facts, step.id, place)
    failed = facts.failed.get(step.key, 0)
    if step.status is StepStatus.RETRYING or failed:
        return _retry(facts, step, failed)
    if step.op in ("sleep", "sleep_until"):
        return Told("sleep", f"sleeps in {name}{until}", step.due_at)
    if step.op == "wait":
        return Told(
            "wait",
            f"waits in {name} for event {_event(step)}{until}" + _hopeless(facts, step),
            step.due_at,
        )
    if step.op == "signal":
        return Told(
            "signal",
            f"waits in {name} for signal {step.details.get('signal')!r}{until}",
            step.due_at,
        )
    if step.op == "invoke":
        return _invoke(facts, step)
    return Told("steps", f"waits for {name}{until}", step.due_at)


def _retry(facts: Facts, step: StepRecord, failed: int) -> Told:
    due = facts.due.get(step.key) or (step.due_at.timestamp() * 1000 if step.due_at else None)
    when = "" if due is None else f" at {at(due, facts.now_ms)}"
    last = f" after {step.attempts[-1].error}".partition("\n")[0] if step.attempts else ""
    text = f"retries step {step.id!r}{when}{last} (attempt {failed + 1} of {facts.attempts})"
    return Told("retry", text, _moment(due))


def _event(step: StepRecord) -> str:
    details = step.details
    text = repr(details.get("event"))
    if details.get("residual"):
        return f"{text} if {details.get('expression')}"
    values: Sequence[Sequence[Any]] = details.get("values") or ()
    wanted = " and ".join(f"{path} == {text_of(value)}" for path, value in values)
    return f"{text} with {wanted}" if wanted else text


def _hopeless(facts: Facts, step: StepRecord) -> str:
    if step.key not in facts.never:
        return ""
    return f", though none can match: {step.details.get('expression')} needs a field that its own event lacks"


def _invoke(facts: Facts, step: StepRecord) -> Told:
    child = facts.children.get(step.key)
    target = f"{step.details.get('app')}/{step.details.get('fn')}"
    until = (
        ""
        if step.due_at is None
        else f", until {at(step.due_at.timestamp() * 1000, facts.now_ms)} at most"
    )
    if isinstance(child, Explanation):
        sentence = child.text.rstrip(".")
        # One sentence, and its inner one begins small.
        text = f"waits in step {step.id!r} for the run of {target} that it invoked{until}: {sentence[:1].lower()}{sentence[1:]}"
        return Told("invoke", text, step.due_at, (child.run_id, *child.runs), child)
    what = child or "its run is not created yet: a coordinator has to take the invoke up"
    return Told(
        "invoke",
        f"waits in step {step.id!r} for {target}, which it invoked{until}: {what}",
        step.due_at,
    )


# --- what a queued item waits for ---


def _queued(facts: Facts, step_id: str, place: Place) -> Told:
    run = facts.run
    what = f"its step {step_id!r} " if step_id else ""
    verb = f"waits: {what}is" if step_id else "is"
    if place.suspect:
        crash = (
            f"crash {run.crashes + 1} of {facts.max_crashes} would be its next"
            if run.crashes
            else "it may be why"
        )
        waits = _service(place.service, run.app_id)
        return Told(
            "suspect",
            f"{verb} suspect, since its worker died with it ({crash}): a worker tries it alone; {waits}",
        )
    gate = place.gate
    if gate is None:
        reason, why = _in_line(place, run.app_id)
        return Told(reason, f"{verb} queued {why}")
    if gate.kind == "t":
        return _throttled(facts, verb, place, gate)
    if gate.kind == "s":
        return _behind_singleton(verb, gate)
    return _at_limit(facts, verb, place, gate)


def _in_line(place: Place, app: str) -> tuple[str, str]:
    of = f" of its key ({place.key})" if place.key else ""
    service = place.service
    reason = "queued" if service.alive and (service.busy or not service.rung) else "no_worker"
    line = f"behind {count(place.before, 'run')}{of}" if place.before else f"first in line{of}"
    return reason, f"{line}; {_service(service, app)}"


def _service(service: Service, app: str) -> str:
    if service.removed:
        return f"its function was removed: only a worker that still has the code takes it; {_workers(service, app)}"
    return _workers(service, app)


def _workers(service: Service, app: str) -> str:
    if not service.alive:
        return "no worker is alive: start one (stepwell worker)"
    alive = count(service.alive, "worker") + (" is" if service.alive == 1 else " are") + " alive"
    if service.busy:
        most = list(service.busy.items())[:_SHOWN]
        shown = ", ".join(f"{worker} holds {count(n, 'item')}" for worker, n in most)
        return f"{alive}, and those that serve app {app!r} are busy ({shown})"
    if service.rung:
        return f"{alive}, and none of them serves app {app!r} or has a free slot for it"
    return f"{alive}, and one of them was called"


def _throttled(facts: Facts, verb: str, place: Place, gate: Gate) -> Told:
    ready = max(gate.ready_us / 1000, facts.now_ms)
    own = max((gate.ready_us + place.before * gate.interval_us) / 1000, ready)
    text = f"{verb} held back by the throttle{gate.label}: the next start is at {at(ready, facts.now_ms)}"
    if place.before:
        text += f", {count(place.before, 'run')} of its key before it, so its own is not before {at(own, facts.now_ms)}"
    else:
        text += ", and it is the first of its key"
    return Told("throttle", text, moment(own))


def _behind_singleton(verb: str, gate: Gate) -> Told:
    runs = tuple(holder.run_id for holder in gate.holders)
    who = _who(gate.holders) or "the run before it"
    return Told(
        "singleton",
        f"{verb} queued until the run before it of its singleton key has ended: {who}",
        runs=runs,
    )


def _at_limit(facts: Facts, verb: str, place: Place, gate: Gate) -> Told:
    limit = count(gate.limit, "run" if gate.kind in "rR" else "step")
    scope = ", shared with other functions" if gate.kind in "CR" else ""
    who = _who(gate.holders, facts.now_ms)
    taken = [f"held by {who}"] if who else []
    if gate.kept:
        names = ", ".join(dict.fromkeys(gate.kept))
        slots = count(len(gate.kept), "slot")
        taken.append(f"{slots} kept for {names} until its other shared limit has one too")
    held = ": " + ", and ".join(taken) if taken else ""
    line = (
        f"; {count(place.before, 'run')} of its queue before it"
        if place.before
        else "; it is the first of its queue"
    )
    text = f"{verb} held back by the concurrency limit of {limit}{gate.label}{scope}{held}{line}"
    return Told("concurrency", text, runs=tuple(dict.fromkeys(h.run_id for h in gate.holders)))


def _who(holders: Sequence[Holder], now_ms: float | None = None) -> str:
    shown = [_holder(holder, now_ms) for holder in holders[:_SHOWN]]
    more = len(holders) - _SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _holder(holder: Holder, now_ms: float | None) -> str:
    text = f"run {holder.run_id} of {holder.function}"
    if holder.status is RunStatus.CANCELLING:
        text += ", which is being cancelled"
    if now_ms is None:
        return text
    return f"{text} since {at(holder.since_ms, now_ms)}"


# --- what else will happen to it ---


def _ending(facts: Facts) -> str:
    return "".join(_deadlines(facts))


def _deadlines(facts: Facts) -> Iterator[str]:
    if facts.run.status.ended or facts.run.status is RunStatus.CANCELLING:
        return
    for mark, what in (("<", "not begun"), (">", "not ended")):
        if mark in facts.due:
            yield f"; its timeout cancels it if it has {what} by {at(facts.due[mark], facts.now_ms)}"


def _moment(ms: float | None) -> datetime | None:
    return None if ms is None else moment(ms)
