"""`Client`: an app, and everything a program asks of Stepwell: send, invoke, look, cancel.

The methods are asynchronous; those named `..._sync` are the same ones, run in the client's portal.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from stepwell import client_args as check
from stepwell.app import App
from stepwell.client_results import as_declared, run_output
from stepwell.clock import Clock
from stepwell.durations import Duration, format_duration, parse_duration
from stepwell.errors import INVOKE_TIMEOUT_MESSAGE, InvokeTimeoutError
from stepwell.events import Event, SendEventsResult, encode_events
from stepwell.function import Function, FunctionReference, check_id
from stepwell.middleware import MiddlewareStack
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

T = TypeVar("T")
LiveRuns = Literal["refuse", "cancel", "keep"]


class Client(App):
    """An app and its connection to a namespace.

    `redis_url`: redis://, rediss://, valkey://, unix://, several hosts for a Cluster, or
    redis+sentinel://; by default $STEPWELL_REDIS_URL, else redis://localhost:6379/0. `shards=None`
    takes the namespace as it is; a new one has a single shard. `send_timeout` is how long a write is
    tried again while the server can't be reached; connecting itself fails at once.

    It connects at the first call, once for each event loop it is used on, and may be used again
    after `aclose`. Raises ConfigError naming the argument.

        client = stepwell.Client(app_id="shop")

        @client.create_function(fn_id="fulfil", trigger=TriggerEvent(event="shop/order.created"))
        async def fulfil(ctx: stepwell.Context) -> None: ...

        await client.send(stepwell.Event(name="shop/order.created", data={"id": 7}))
    """

    async def send(
        self, events: Event | Iterable[Event], *, skip_middleware: bool = False
    ) -> list[str]:
        """Send one event or several; their ids, in order (of a duplicate: the first one's).

        All are checked before any is written, and accepted together (with several shards: per
        shard). Lost connections are survived for `send_timeout`; nothing is accepted twice. Raises
        EventInvalidError, LimitExceededError, StreamFullError, ServerError, and SendEventsError when
        only some were accepted (`.ids`).

        >>> await client.send(Event(name="shop/order.created", data={"id": 7}))
        """
        batch = check.event_list(events)
        if self.middleware and not skip_middleware:
            return await self._send_through(batch)
        return await self._send(batch)

    async def _send(self, batch: Sequence[Event]) -> list[str]:
        encoded = encode_events(batch, self.limits)
        if not encoded:
            return []
        gateway = self._connections.ready() or await self._connections.get()
        return await gateway.send(batch, encoded)

    async def _send_through(self, batch: list[Event]) -> list[str]:
        stack = MiddlewareStack.build(self, self.middleware, is_async=True, where="client.send")
        assert stack is not None
        result = SendEventsResult()
        await stack.run("before_send_events", batch)
        try:
            result.ids = await self._send(batch)
        except Exception as error:
            result.error, result.ids = str(error), list(getattr(error, "ids", ()))
            raise
        finally:
            await stack.run("after_send_events", result)
        return result.ids

    @overload
    async def invoke(
        self,
        function: Function[T],
        *,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,  # noqa: ASYNC109 - a Duration, and part of what is asked
    ) -> T: ...
    @overload
    async def invoke(
        self,
        function: FunctionReference | str,
        *,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,  # noqa: ASYNC109 - as above
    ) -> Any: ...
    async def invoke(
        self,
        function: Function[Any] | FunctionReference | str,
        *,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,  # noqa: ASYNC109 - as above
    ) -> Any:
        """Run a function and wait for what it returns. `function` may be the text "app-fn".

        Raises FunctionNotFoundError when no worker registered it or it was removed, RunFailedError,
        RunCancelledError, and InvokeTimeoutError after `timeout` (None: wait for ever), when the run
        goes on.

        >>> await client.invoke(make_invoice, data={"order": 7}, timeout="30s")
        """
        target = check.target(function)
        limit = check.seconds(timeout)
        known = ("", target) if isinstance(target, str) else target
        encoded = check.invoked_event(*known, data, self.limits)
        gateway = await self._connections.get()
        if isinstance(target, str):
            target = await gateway.function(target)
            encoded = check.invoked_event(*target, data, self.limits)
        run_id = await gateway.start(*target, encoded)
        try:
            async with asyncio.timeout(limit):
                status, value = await gateway.result(run_id, expected=True)
        except TimeoutError:
            raise InvokeTimeoutError(f"{INVOKE_TIMEOUT_MESSAGE}: {_late(run_id, limit)}") from None
        return as_declared(function, run_output(run_id, status, value), self.serializer)

    async def get_run(self, run_id: str) -> Run:
        """A run with its steps, attempts and entries. Raises RunNotFoundError; RunGatheringError, which is one,
        while a debounce or batch gathers events for it; RunNotStartedError when none came of that.
        """
        check.text(run_id, "run_id", "01J8ZQ4Y9V2D6N3X5K7M1C0B8A")
        return await (await self._connections.get()).run(run_id)

    async def explain(self, run_id: str) -> Explanation:
        """Why a run is not running now, in one sentence (`str()` of it). Raises RunNotFoundError.

        >>> print(await client.explain(run_id))
        Run 01J… of shop/fulfil sleeps in step 'time-to-cancel' until 2030-01-02 09:00:00 UTC (in 23h).
        """
        check.text(run_id, "run_id", "01J8ZQ4Y9V2D6N3X5K7M1C0B8A")
        return await (await self._connections.get()).explain(run_id)

    async def list_runs(
        self,
        *,
        fn_id: str | None = None,
        app_id: str | None = None,
        status: RunStatus | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[RunSummary]:
        """Runs of the namespace, newest first; without `app_id`, those of all apps.

        A page may be short and still have a `cursor`: looking for a rare status is done in bounded
        parts. Raises ConfigError naming the argument.

        >>> (await client.list_runs(status="failed", limit=10)).items
        """
        query = check.run_query(app_id, fn_id, status, limit, cursor)
        return await (await self._connections.get()).runs(query)

    async def wait_for_run(self, run_id: str, *, timeout: Duration | None = None) -> Run:  # noqa: ASYNC109 - as above
        """Wait until a run has ended, without polling; before that, until an open debounce or batch has become it.

        Raises RunNotFoundError, RunNotStartedError when flow control lets none begin, InvokeTimeoutError after `timeout`.
        """
        check.text(run_id, "run_id", "01J8ZQ4Y9V2D6N3X5K7M1C0B8A")
        limit = check.seconds(timeout)
        gateway = await self._connections.get()
        try:
            async with asyncio.timeout(limit):
                return await gateway.wait(run_id)
        except TimeoutError:
            raise InvokeTimeoutError(_late(run_id, limit)) from None

    async def cancel_run(
        self, run_id: str, *, reason: str | None = None, children: bool = False
    ) -> RunStatus:
        """Cancel a run; its status afterwards: CANCELLED, CANCELLING while a worker has it, or the
        end it already had. `children`: the runs that it invoked and waits for, or waited for when it
        ended, are cancelled too, and those that they did. That of an open debounce or batch is
        cancelled before it begins. Idempotent. Raises RunNotFoundError.
        """
        check.text(run_id, "run_id", "01J8ZQ4Y9V2D6N3X5K7M1C0B8A")
        why = check.cancel_reason(reason)
        return await (await self._connections.get()).cancel(run_id, why, children=children)

    async def cancel_runs(self, **which: Unpack[check.Which]) -> BulkCancel:
        """Cancel all runs of a function (`fn_id`) or an app (`app_id`) that have not ended; how many.

        `status`: only those of that status. `started_after`, `started_before` (datetime, ISO text or
        ms): only those created from the one until before the other. `if_exp`: only those for whose
        event the expression is true. `limit`: so many at most, the newest. `children`, `reason`: as
        for `cancel_run`. `dry_run`: only count. Open debounces and batches are among them, except
        with `status`.

        Runs created later are not among them. When it is interrupted, call it again: it goes on
        with those that are left. Raises FunctionNotFoundError, ConfigError, DurationError, ExpressionError.

        >>> (await client.cancel_runs(fn_id="fulfil", if_exp="event.data.tenant == 't1'")).count
        """
        query = check.cancel_runs(**which)
        return await (await self._connections.get()).cancel_runs(query)

    async def remove_function(
        self, fn_id: str, *, app_id: str | None = None, runs: LiveRuns = "refuse"
    ) -> RemovedFunction:
        """Take a function that the code no longer has out of the registry, with its `on_failure`.

        From then on no event, cron or invoke starts it, and it is listed no more; what it ran can still be
        looked at. A worker that starts with it brings it back. `app_id`: by default this client's.
        `runs`: what becomes of runs that have not ended: "refuse" removes nothing while there are any,
        "cancel" cancels them, "keep" leaves them to workers that still have the code.

        Raises FunctionNotFoundError, FunctionInUseError, ConfigError.

        >>> await client.remove_function("fulfil", runs="cancel")
        """
        asked = check.removal(self.app_id if app_id is None else app_id, fn_id, runs)
        return await (await self._connections.get()).remove_function(asked)

    async def send_signal(
        self, signal: str, data: object = None, *, hold: Duration | None = None
    ) -> str | None:
        """Send a signal; the id of the run that received it, None when nobody waits.

        `hold` keeps an unreceived one that long for the next run that waits for it. Raises
        ConfigError, UnserializableError, LimitExceededError.

        >>> await client.send_signal("approve-7", {"by": "mia"})
        """
        check_id(signal, "send_signal(signal=)")
        value = check.signal_value(data, self.limits)
        hold_ms = 0 if hold is None else parse_duration(hold, argument="hold")
        return await (await self._connections.get()).signal(signal, value, hold_ms)

    async def get_event(self, event_id: str) -> EventRecord | None:
        """What became of an event, by an id that `send` returned; None when unknown or too old."""
        check.text(event_id, "event_id", "01J8ZQ4Y9V2D6N3X5K7M1C0B8A")
        return await (await self._connections.get()).event(event_id)

    async def aclose(self) -> None:
        """Close the connections of every loop and end the portal's thread. Idempotent."""
        await self._connections.aclose()
        if self._portal.running:
            await asyncio.to_thread(self._portal.stop)

    @asynccontextmanager
    async def bound(
        self, *, redis_url: str, namespace: str, shards: int, clock: Clock
    ) -> AsyncGenerator[None, None]:
        """Use another namespace and clock for a while, as `stepwell.testing.Engine` does."""
        before = self._redis_url, self.namespace, self.shards, self.clock
        await self.aclose()
        self._redis_url, self.namespace, self.shards, self.clock = (
            redis_url, namespace, shards, clock,
        )  # fmt: skip
        try:
            yield
        finally:
            await self.aclose()
            self._redis_url, self.namespace, self.shards, self.clock = before

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def send_sync(
        self, events: Event | Iterable[Event], *, skip_middleware: bool = False
    ) -> list[str]:
        """As `send`, blocking."""
        return self._portal.run(self.send(events, skip_middleware=skip_middleware))

    @overload
    def invoke_sync(
        self,
        function: Function[T],
        *,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
    ) -> T: ...
    @overload
    def invoke_sync(
        self,
        function: FunctionReference | str,
        *,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
    ) -> Any: ...
    def invoke_sync(
        self,
        function: Function[Any] | FunctionReference | str,
        *,
        data: Mapping[str, object] | None = None,
        timeout: Duration | None = None,
    ) -> Any:
        """As `invoke`, blocking."""
        return self._portal.run(self.invoke(function, data=data, timeout=timeout))

    def get_run_sync(self, run_id: str) -> Run:
        """As `get_run`, blocking."""
        return self._portal.run(self.get_run(run_id))

    def explain_sync(self, run_id: str) -> Explanation:
        """As `explain`, blocking."""
        return self._portal.run(self.explain(run_id))

    def list_runs_sync(
        self,
        *,
        fn_id: str | None = None,
        app_id: str | None = None,
        status: RunStatus | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[RunSummary]:
        """As `list_runs`, blocking."""
        return self._portal.run(
            self.list_runs(fn_id=fn_id, app_id=app_id, status=status, limit=limit, cursor=cursor)
        )

    def wait_for_run_sync(self, run_id: str, *, timeout: Duration | None = None) -> Run:
        """As `wait_for_run`, blocking."""
        return self._portal.run(self.wait_for_run(run_id, timeout=timeout))

    def cancel_run_sync(
        self, run_id: str, *, reason: str | None = None, children: bool = False
    ) -> RunStatus:
        """As `cancel_run`, blocking."""
        return self._portal.run(self.cancel_run(run_id, reason=reason, children=children))

    def cancel_runs_sync(self, **which: Unpack[check.Which]) -> BulkCancel:
        """As `cancel_runs`, blocking."""
        return self._portal.run(self.cancel_runs(**which))

    def remove_function_sync(
        self, fn_id: str, *, app_id: str | None = None, runs: LiveRuns = "refuse"
    ) -> RemovedFunction:
        """As `remove_function`, blocking."""
        return self._portal.run(self.remove_function(fn_id, app_id=app_id, runs=runs))

    def send_signal_sync(
        self, signal: str, data: object = None, *, hold: Duration | None = None
    ) -> str | None:
        """As `send_signal`, blocking."""
        return self._portal.run(self.send_signal(signal, data, hold=hold))

    def get_event_sync(self, event_id: str) -> EventRecord | None:
        """As `get_event`, blocking."""
        return self._portal.run(self.get_event(event_id))

    def close(self) -> None:
        """As `aclose`, blocking."""
        self._portal.run(self._connections.aclose())
        self._portal.stop()


def _late(run_id: str, limit: float | None) -> str:
    after = format_duration(int((limit or 0) * 1000))
    return f"run {run_id} had not ended after {after}; it goes on running"
