"""Take a function out of the registry: nothing starts it any more, its crons end; what becomes of its live runs is the caller's choice."""

from collections.abc import Sequence
from typing import Final

from stepwell.errors import FunctionInUseError, FunctionNotFoundError
from stepwell.gateway import BulkQuery, Removal
from stepwell.records import RemovedFunction
from stepwell_engine.bulk import cancel_runs
from stepwell_engine.directory import Directory
from stepwell_engine.explain import count
from stepwell_engine.registry import Registry
from stepwell_engine.store.store import Store
from stepwell_engine.triggers import RegisteredFunction

_COUNTED: Final = 1_000
_WHY: Final = "its function was removed"


async def remove_function(store: Store, directory: Directory, asked: Removal) -> RemovedFunction:
    """Remove a function with its `on_failure`. Raises FunctionNotFoundError, FunctionInUseError, ServerError.

    The registry first, the runs after it: what comes to be meanwhile was decided by an older version, and is found.
    """
    found = await _named(store, asked)
    live = await _live(store, directory, found)
    if live and asked.runs == "refuse":
        runs = "1,000 or more runs" if live >= _COUNTED else count(live, "run")
        raise FunctionInUseError(
            f"{asked.app_id}/{asked.fn_id} has {runs} that have not ended; wait for them, or say what "
            'becomes of them: runs="cancel" (--cancel-runs) cancels them, runs="keep" (--keep-runs) leaves them to the '
            "workers that still have its code",
            live,
        )
    if live and asked.runs == "keep":
        # A run that is kept may still fail, and somebody is to hear of it.
        found = [f for f in found if f.fn == asked.fn_id] or found
    gone = await store.home.unregister([f"{f.app}\0{f.fn}" for f in found])
    cancelled = await _cancel(store, directory, found) if asked.runs == "cancel" else 0
    return RemovedFunction(
        app_id=asked.app_id,
        fn_ids=tuple(field.partition("\0")[2] for field in gone),
        cancelled=cancelled,
        left=await _live(store, directory, found),
    )


async def _named(store: Store, asked: Removal) -> list[RegisteredFunction]:
    """The function and what it registered for its failures, as far as they can be started."""
    registry = Registry(store)
    await registry.refresh()
    function = registry.known(asked.app_id, asked.fn_id)
    failure = function.config.get("on_failure") if function else None
    both = [function, registry.known(asked.app_id, failure) if failure else None]
    found = [f for f in both if f is not None and not f.removed]
    if not found:
        raise FunctionNotFoundError(
            f"no function {asked.fn_id!r} of app {asked.app_id!r} is registered in namespace {store.namespace!r}; "
            "`stepwell functions` lists them"
        )
    return found


async def _live(store: Store, directory: Directory, functions: Sequence[RegisteredFunction]) -> int:
    """How many of their runs have not ended, open debounces and batches among them; counted up to 1,000 each."""
    found = [await cancel_runs(store, directory, _every(f, dry_run=True)) for f in functions]
    return sum(each.count for each in found)


async def _cancel(
    store: Store, directory: Directory, functions: Sequence[RegisteredFunction]
) -> int:
    """Cancel all their runs."""
    return sum([(await cancel_runs(store, directory, _every(f))).count for f in functions])


def _every(function: RegisteredFunction, *, dry_run: bool = False) -> BulkQuery:
    return BulkQuery(
        app_id=function.app,
        fn_id=function.fn,
        status=None,
        after_ms=0,
        before_ms=None,
        if_exp=None,
        limit=_COUNTED if dry_run else None,
        children=False,
        dry_run=dry_run,
        reason=_WHY,
        why="removed",
    )
