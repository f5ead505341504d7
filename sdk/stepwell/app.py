"""`App`: what a client is before it asks anything: its settings, its functions, how it connects."""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from stepwell import client_args as check
from stepwell.checkpointing import Checkpointing
from stepwell.clock import Clock, SystemClock
from stepwell.connections import Connections
from stepwell.definition import MAX_CRASHES, STEP_TIMEOUT, create_function
from stepwell.durations import Duration, parse_duration
from stepwell.errors import ConfigError
from stepwell.flow import (
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    Priority,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
)
from stepwell.function import Decorator, Function, Handler, check_id
from stepwell.gateway import GatewayOptions
from stepwell.limits import DEFAULT_LIMITS, Limits
from stepwell.middleware import UninitializedMiddleware
from stepwell.portal import Portal
from stepwell.retries import Retries
from stepwell.runtime import UNSET
from stepwell.serde.outputs import Serializer
from stepwell.triggers import Trigger

Logger = logging.Logger | logging.LoggerAdapter[Any]

_SECOND: Final = 1_000
_MAX_SEND_TIMEOUT: Final = 600_000


class App:
    """An app by its id, with its settings and functions. Use `stepwell.Client`."""

    def __init__(
        self,
        *,
        app_id: str,
        redis_url: str | None = None,
        namespace: str = "stepwell",
        shards: int | None = None,
        middleware: Sequence[UninitializedMiddleware] | None = None,
        serializer: Serializer | None = None,
        logger: Logger | None = None,
        app_version: str | None = None,
        checkpointing: Checkpointing | None = None,
        limits: Limits | None = None,
        send_timeout: Duration = "10s",
        clock: Clock | None = None,
    ) -> None:
        self.app_id = check_id(app_id, "Client(app_id=)")
        if redis_url is not None:
            check.text(redis_url, "Client(redis_url=)", check.DEFAULT_URL)
        if app_version is not None:
            check.text(app_version, "Client(app_version=)", "1.4.2")
        self.app_version = app_version
        self.namespace = namespace
        self.shards: int | None = shards
        self.serializer = serializer
        self.logger: Logger = logger or logging.getLogger("stepwell")
        self.checkpointing = check.instance(
            checkpointing, "Client(checkpointing=)", Checkpointing, "Checkpointing(...)"
        )
        given = check.instance(limits, "Client(limits=)", Limits, "Limits(...)")
        self.limits = given or DEFAULT_LIMITS
        self.clock: Clock = clock or SystemClock()
        self.middleware: list[UninitializedMiddleware] = []
        for one in middleware or ():
            self.add_middleware(one)
        argument = "Client(send_timeout=)"
        self._send_timeout = (
            parse_duration(
                send_timeout, argument=argument, minimum=_SECOND, maximum=_MAX_SEND_TIMEOUT
            )
            / 1000
        )
        self._redis_url = redis_url
        self._functions: dict[str, Function[Any]] = {}
        self._connections = Connections(self.options)
        self._portal = Portal(f"stepwell-client-{app_id}")
        self.options()  # checks namespace and shards now, not at the first call

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.app_id!r} of namespace {self.namespace!r}>"

    @property
    def redis_url(self) -> str:
        """Where the server is; read from the environment unless given."""
        return check.redis_url(self._redis_url)

    @property
    def functions(self) -> Mapping[str, Function[Any]]:
        """The app's functions by their local ids, those of `on_failure=` among them."""
        return MappingProxyType(self._functions)

    def options(self) -> GatewayOptions:
        """How this client connects. For those who open a Store of their own, such as workers."""
        return GatewayOptions(
            url=self.redis_url,
            namespace=self.namespace,
            shards=self.shards,
            clock=self.clock,
            deadline=self._send_timeout,
        )

    def set_logger(self, logger: Logger) -> None:
        """Replace the logger."""
        self.logger = logger

    def add_middleware(self, middleware: UninitializedMiddleware) -> None:
        """Append a middleware class, or a function of `(client, raw_request)` that makes one."""
        if not callable(middleware):
            raise ConfigError(
                f"middleware: {middleware!r}; write a Middleware class, or a function that makes one"
            )
        self.middleware = [*self.middleware, middleware]

    def create_function(
        self,
        *,
        fn_id: str,
        trigger: Trigger | Sequence[Trigger] | None = None,
        name: str | None = None,
        retries: int | Retries | None = None,
        on_failure: Handler | None = None,
        middleware: Sequence[UninitializedMiddleware] | None = None,
        output_type: Any = UNSET,
        checkpointing: Checkpointing | None = None,
        distribute: bool = False,
        max_crashes: int = MAX_CRASHES,
        step_timeout: Duration = STEP_TIMEOUT,
        lookback: Sequence[str] = (),
        serializer: Serializer | None = None,
        batch_events: Batch | None = None,
        cancel: Cancel | Sequence[Cancel] | None = None,
        concurrency: int | Concurrency | Sequence[Concurrency] | None = None,
        debounce: Debounce | None = None,
        idempotency: str | None = None,
        priority: Priority | None = None,
        rate_limit: RateLimit | None = None,
        singleton: Singleton | None = None,
        throttle: Throttle | None = None,
        timeouts: Timeouts | None = None,
    ) -> Decorator:
        """A decorator that makes `async def handler(ctx)` or `def handler(ctx)` a durable function.

        `trigger` None: only `invoke` starts it. `retries`: attempts after the first, of each step and
        of the body (4), or Retries(...). `on_failure` is a handler run, as a function of its own,
        when a run has failed. `distribute`: parallel branches may run on other workers. `lookback`:
        the names that its `wait_for_event(lookback=True)` may ask for.

        Flow control: `concurrency` (a number, or Concurrency) and `throttle` make work wait;
        `rate_limit`, `idempotency` (a CEL key over `event`: one run for each of its values in 24
        hours) and `singleton` start no run; `debounce` and `batch_events` make one run of many
        events; `priority` lets a run go before others; `cancel` and `timeouts` end it. Not together:
        `batch_events` with `cancel`, `debounce`, `priority` or `singleton`. A key that is `false` for
        an event turns its option off for it. Raises ConfigError naming function and argument.

        >>> @client.create_function(fn_id="fulfil", trigger=TriggerEvent(event="shop/order.created"))
        ... async def fulfil(ctx: Context) -> str: ...
        """
        return create_function(
            self,
            self._functions,
            fn_id=fn_id,
            trigger=trigger,
            name=name,
            retries=retries,
            on_failure=on_failure,
            middleware=middleware,
            output_type=output_type,
            checkpointing=checkpointing,
            distribute=distribute,
            max_crashes=max_crashes,
            step_timeout=step_timeout,
            lookback=lookback,
            serializer=serializer,
            limits=self.limits,
            batch_events=batch_events,
            cancel=cancel,
            concurrency=concurrency,
            debounce=debounce,
            idempotency=idempotency,
            priority=priority,
            rate_limit=rate_limit,
            singleton=singleton,
            throttle=throttle,
            timeouts=timeouts,
        )
