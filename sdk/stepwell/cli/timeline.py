"""A run for people: what happened, in order, with when, how long, how often and why not."""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from stepwell.cli import output
from stepwell.records import Attempt, Entry, ErrorInfo, Run, StepRecord
from stepwell.texts import one_line

_Row = tuple[datetime, int, tuple[str, str, str, str]]
_STACK_LINES = 12


def render(run: Run) -> RenderableType:
    """The head of a run, its timeline, its result or error.

    console.print(render(await client.get_run(run_id)))
    """
    parts: list[RenderableType] = [_head(run)]
    rows = sorted(_rows(run), key=lambda row: row[:2])
    if rows:
        made = output.table("AT", "WHAT", "STATUS", "TOOK", "DETAIL")
        for at, _, (what, status, took, detail) in rows:
            style = output.STYLES.get(status, "")
            made.add_row(
                output.clock(at),
                Text(one_line(what)),
                Text(status, style=style),
                took,
                Text(one_line(detail)),
            )
        parts.append(made)
    if run.output is not None:
        parts.append(Text(f"output: {output.short(run.output, 2000)}"))
    if run.error is not None:
        parts.append(_error(run.error))
    return Group(*parts)


def _head(run: Run) -> Text:
    status = str(run.status)
    style = output.STYLES.get(status, "bold")
    took = output.duration(run.started_at, run.ended_at)
    text = Text.from_markup(
        f"[bold]{run.id}[/]  {escape(run.app_id)}/{escape(run.fn_id)}  [{style}]{status}[/]"
        + (f" in {took}" if took else "")
    )
    for event in run.events:
        text.append(f"\nevent:  {one_line(event.name)} {output.short(event.data)}")
    text.append(f"\ncreated: {output.moment(run.created_at)}")
    text.append(f"   started: {output.moment(run.started_at) or 'not yet'}")
    text.append(f"   ended: {output.moment(run.ended_at) or 'not yet'}")
    if run.parent_run_id:
        text.append(f"\ninvoked by {run.parent_run_id}")
    if run.crashes:
        text.append(f"\nits worker died {run.crashes} time(s) while it ran", style="yellow")
    return text


def _rows(run: Run) -> Iterator[_Row]:
    names = {step.key: step.id for step in run.steps}
    for entry in run.entries:
        yield from _stay(entry, names)
    for attempt in run.attempts:
        yield _attempt("function", attempt)
    for step in run.steps:
        yield from (_attempt(f"  step {step.id}", a) for a in step.attempts)
        yield _step(step, run.created_at)


def _stay(entry: Entry, names: dict[str, str]) -> Iterator[_Row]:
    which = f" ({names.get(entry.step_key, entry.step_key)})" if entry.step_key else ""
    waited = output.duration(entry.queued_at, entry.started_at)
    detail = f"{entry.worker}, after {waited} in the queue"
    yield entry.started_at, 0, (f"worker took it{which}", "", "", detail)
    if entry.ended_at is not None:
        took = output.duration(entry.started_at, entry.ended_at)
        status = entry.outcome if entry.outcome in output.STYLES else ""
        what = "its worker was lost" if entry.outcome == "lost" else f"{entry.outcome}{which}"
        yield entry.ended_at, 3, (what, status, took, "")


def _attempt(what: str, attempt: Attempt) -> _Row:
    took = output.duration(attempt.started_at, attempt.ended_at)
    detail = f"attempt {attempt.number + 1}: {attempt.error}".partition("\n")[0]
    return attempt.started_at, 1, (what, "failed", took, detail)


def _step(step: StepRecord, otherwise: datetime) -> _Row:
    what = f"  step {step.id}" if step.op == "run" else f"  {step.op} {step.id}"
    took = output.duration(step.started_at, step.ended_at)
    return step.started_at or otherwise, 2, (what, str(step.status), took, _detail(step))


def _detail(step: StepRecord) -> str:
    if step.error is not None:
        return str(step.error).partition("\n")[0]
    if step.ended_at is None:
        what = " ".join(
            f"{name}={output.short(step.details[name], 60)}"
            for name in ("event", "expression", "signal", "fn")
            if step.details.get(name)
        )
        due = f"until {output.moment(step.due_at)}" if step.due_at else ""
        return ", ".join(part for part in (what, due) if part)
    return "" if step.output is None else f"→ {output.short(step.output, 80)}"


def _error(error: ErrorInfo) -> Text:
    text = Text("\n".join(map(one_line, f"error: {error}".split("\n"))), style="red")
    if error.stack:
        lines = [one_line(line.expandtabs()) for line in error.stack.rstrip().splitlines()]
        cut = ["…"] if len(lines) > _STACK_LINES else []
        text.append("\n" + "\n".join([*cut, *lines[-_STACK_LINES:]]), style="dim")
    return text
