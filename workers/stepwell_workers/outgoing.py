"""What a step writes besides its result: waits, invokes, events; and the limits that are checked before anything is written."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from stepwell import ids, step_args
from stepwell.errors import LimitExceededError
from stepwell.events import Event, encode_event, encode_events
from stepwell.runtime import Invoke, Wait
from stepwell.serde.values import pack
from stepwell.step_args import StepArgumentError
from stepwell_engine import expressions
from stepwell_engine.store.transitions import Arg
from stepwell_workers import memo
from stepwell_workers.memo import StepName

if TYPE_CHECKING:
    from stepwell_workers.entry import Entry

# Where waits without an equality live in the index, and those that can never match.
ANY_VALUE = b"\x00" + b"0" * 16
NEVER = "!"


def bad_step_id(step_id: object) -> NoReturn:
    """Say what is wrong with a step id."""
    if isinstance(step_id, str) and step_id:
        raise StepArgumentError(f"step_id has {len(step_id)} characters; at most 255 are allowed")
    raise StepArgumentError(
        f'step_id must be a non-empty string, not {step_id!r}; write e.g. "charge"'
    )


def over(what: str, seen: int, limit: int, setting: str) -> None:
    """Raise `LimitExceededError` when `seen` is over the limit."""
    if seen > limit:
        raise LimitExceededError(setting, limit, seen, what)


def check_output(entry: "Entry", step_id: str, record: bytes) -> None:
    """A step's output has a size limit."""
    limit = entry.services.limits.step_output
    if len(record) > limit:
        over(f"the output of step {step_id!r}", len(record), limit, "step_output")


def check_state(entry: "Entry", record: bytes) -> None:
    """A run's steps are limited in number and in total size."""
    limits, steps = entry.services.limits, entry.steps
    steps.size += len(record)
    if steps.recorded > limits.steps or steps.size > limits.run_state:
        over("the number of steps in one run", steps.recorded, limits.steps, "steps")
        over("the recorded steps of one run", steps.size, limits.run_state, "run_state")


def trigger(entry: "Entry") -> Mapping[str, Any]:
    """The run's event as expressions see it."""
    return entry.trigger().to_dict()


def wait_ops(entry: "Entry", name: StepName, step_id: str, wait: Wait) -> Sequence[Arg]:
    """The registration of a wait: where it is indexed, and what a candidate must meet."""
    step_args.declared(wait, entry.function)
    path, prefix = "", ANY_VALUE
    values: list[list[Any]] = []
    residual = False
    if wait.expression is not None:
        program = expressions.compile(wait.expression)
        bound = program.bind(trigger(entry))
        residual = program.residual
        if bound is None:
            path, prefix = NEVER, NEVER.encode() + ANY_VALUE
        elif bound:
            values = [[where, value] for where, value in bound]
            path = bound[0][0]
            key = expressions.index_key(bound[0][1])
            assert key is not None
            prefix = path.encode() + b"\x00" + key
    details = {
        "event": wait.event,
        "expression": wait.expression,
        "values": values,
        "residual": residual,
    }
    described = memo.head(
        "wait", step_id, entry.services.clock.now_ms(), {**details, "timeout_ms": wait.timeout_ms}
    )
    since = str(ids.ulid_ms(entry.run_id) * 1000) if wait.lookback else ""
    return ("w", name.key, wait.timeout_ms, wait.event, prefix, path, described, since)


def invoke_ops(entry: "Entry", name: StepName, step_id: str, invoke: Invoke) -> Sequence[Arg]:
    """The registration of an invoke, with the event that starts the child."""
    entropy = ids.event_entropy(f"{entry.run_id}:{name.key}", 0)
    parent = f"{entry.run_id}:{name.key}"
    target = f"{invoke.app_id}-{invoke.fn_id}"
    data = {
        **invoke.data,
        "_inngest": {"fn_id": target, "correlation_id": f"{entry.run_id}.{name.key}"},
    }
    encoded = encode_event(Event(name="inngest/function.invoked", data=data, v=invoke.v))
    over(
        f"the data of invoke {step_id!r}",
        len(encoded),
        entry.services.limits.event,
        "event",
    )
    details = {
        "app": invoke.app_id,
        "fn": invoke.fn_id,
        "entropy": entropy,
        "timeout_ms": invoke.timeout_ms,
    }
    described = memo.head("invoke", step_id, entry.services.clock.now_ms(), details)
    extra = pack([invoke.app_id, invoke.fn_id, parent], where="invoke")
    cancel = "1" if invoke.cancel_child else ""
    return ("i", name.key, invoke.timeout_ms, described, encoded, entropy, extra, cancel)


def event_args(
    entry: "Entry", name: StepName, events: Sequence[Event]
) -> tuple[list[str], list[Arg]]:
    """The ids of events sent by a step, and their arguments for commit.lua.

    An id is made from run, step and index, so an attempt that is repeated before it was recorded makes the same ones but for their time.
    """
    services = entry.services
    stamp = ids.ulid_time_chars(services.clock.now_ms())
    seed = f"{entry.run_id}:{name.key}"
    out: list[str] = []
    args: list[Arg] = []
    for index, (event, encoded) in enumerate(
        zip(events, encode_events(events, services.limits), strict=True)
    ):
        event_id = stamp + ids.event_entropy(seed, index)
        id_hash, shard = services.event_route(event)
        out.append(event_id)
        args += (event.name, encoded, event_id, id_hash, shard)
    return out, args
