"""A client without a server."""

from collections.abc import Sequence
from typing import Any

from stepwell import client as real
from stepwell.connections import Connections
from stepwell.errors import ConfigError
from stepwell.events import Event, encode_events
from stepwell.gateway import Gateway
from stepwell.testing.mocked.values import ID


class Client(real.Client):
    """A client that sends nothing: `send` checks its events and returns an id of zeros for each."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._connections = _NoServer(self.options)

    async def _send(self, batch: Sequence[Event]) -> list[str]:
        encode_events(batch, self.limits)
        return [ID] * len(batch)


class _NoServer(Connections):
    async def get(self) -> Gateway:
        raise ConfigError(
            "a mocked.Client has no server; use stepwell.testing.Engine for what needs one"
        )
