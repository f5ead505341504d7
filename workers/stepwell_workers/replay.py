"""`ctx.logger` while recorded steps are replayed: silent, so that each line is written once a run."""

import logging
from typing import Any, Protocol


class Replaying(Protocol):
    """Whatever knows whether recorded steps remain to be replayed."""

    @property
    def replaying(self) -> bool:
        """True until the last recorded step was asked for."""
        ...


class ReplayLogger(logging.LoggerAdapter[Any]):
    """Passes lines on only once the replay is over."""

    def __init__(self, logger: Any, state: Replaying) -> None:
        super().__init__(logger, None)
        self._state = state

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """False while replaying."""
        return not self._state.replaying and bool(self.logger.isEnabledFor(level))

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log unless replaying."""
        if self.isEnabledFor(level):
            kwargs.setdefault("stacklevel", 2)
            self.logger.log(level, msg, *args, **kwargs)
