"""What a client asks of the engine: the one interface between the two.

Importing it loads no server code; `stepwell._engine.open_gateway` gives the real one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from stepwell.clock import Clock
from stepwell.errors import ConfigError
from stepwell.events import Event
from stepwell.ids import MAX_SHARDS
from stepwell.records import (
    BulkCancel,
    EventRecord,
    Explanation,
    Page,
    RemovedFunction,
    Run,
    RunStatus,
    RunSummary,
)

NAMESPACE_CHARS: Final = 64


def check_namespace(namespace: object) -> None:
    """Raise ConfigError unless `namespace` can stand in a key's hash tag."""
    if not isinstance(namespace, str) or not namespace:
        raise ConfigError(f'namespace={namespace!r}: write a non-empty string such as "stepwell"')
    if len(namespace) > NAMESPACE_CHARS:
        raise ConfigError(
            f"namespace has {len(namespace)} characters; write at most {NAMESPACE_CHARS}"
        )
    if any(c in "{}" or c.isspace() or not c.isprintable() for c in namespace):
        raise ConfigError(
            f"namespace={namespace!r}: braces, white space and control characters are not allowed; "
            'write a name such as "shop-staging"'
        )


def check_shards(shards: object) -> None:
    """Raise ConfigError unless `shards` is None or a possible count."""
    if shards is None:
        return
    if isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= MAX_SHARDS:
        raise ConfigError(
            f"shards={shards!r}: write an int from 1 to {MAX_SHARDS}, or leave it out to take the "
            "namespace as it is"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """How to reach a namespace. `deadline`: seconds a write may be tried."""

    url: str
    namespace: str
    shards: int | None
    clock: Clock
    deadline: float

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        check_shards(self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs to list; None = any. `cursor` of the page before, "" = from the newest."""

    app_id: str | None
    fn_id: str | None
    status: RunStatus | None
    limit: int
    cursor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkQuery:
    """Which runs to cancel, None = any: of those that have not ended, created from `after_ms` on and before `before_ms` (None = now).

    `reason` is for people, `why` the word for metrics.
    """

    app_id: str | None
    fn_id: str | None
    status: RunStatus | None
    after_ms: int
    before_ms: int | None
    if_exp: str | None
    limit: int | None
    children: bool
    dry_run: bool
    reason: str
    why: str = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Which function to take out of the registry, and what becomes of its live runs: refuse, cancel or keep."""

    app_id: str
    fn_id: str
    runs: str


class Gateway(Protocol):
    """An open namespace, of one event loop. Every value given to it has been validated."""

    async def send(
        self, events: Sequence[Event], encoded: Sequence[bytes], *, seed: str = ""
    ) -> list[str]:
        """Accept events; their ids in order. Sent again with the same seed they are the same."""
        ...

    async def function(self, name: str) -> tuple[str, str]:
        """App and id of the one function called `app-fn`. Raises FunctionNotFoundError."""
        ...

    async def start(self, app_id: str, fn_id: str, encoded: bytes, *, seed: str = "") -> str:
        """Start a run of a function, which must be registered, with that event; the run's id."""
        ...

    async def result(self, run_id: str, *, expected: bool = False) -> tuple[RunStatus, Any]:
        """Wait for a run's end: its status with its output, or with its ErrorInfo."""
        ...

    async def wait(self, run_id: str) -> Run:
        """Wait for a run's end. Raises RunNotFoundError."""
        ...

    async def run(self, run_id: str) -> Run:
        """A run. Raises RunNotFoundError."""
        ...

    async def explain(self, run_id: str) -> Explanation:
        """Why a run is not running now. Raises RunNotFoundError."""
        ...

    async def runs(self, query: RunQuery) -> Page[RunSummary]:
        """Runs, newest first."""
        ...

    async def cancel(self, run_id: str, reason: str, *, children: bool = False) -> RunStatus:
        """Cancel a run, with `children` those it invoked too; its status afterwards. Raises RunNotFoundError."""
        ...

    async def cancel_runs(self, query: BulkQuery) -> BulkCancel:
        """Cancel runs. Raises ExpressionError."""
        ...

    async def remove_function(self, asked: Removal) -> RemovedFunction:
        """Take a function out of the registry. Raises FunctionNotFoundError, FunctionInUseError."""
        ...

    async def signal(self, signal: str, value: bytes, hold_ms: int) -> str | None:
        """Send a signal; the run that received it."""
        ...

    async def event(self, event_id: str) -> EventRecord | None:
        """What became of an event; None for an unknown one."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
