"""Logging of the long-running commands: one line each on stderr."""

import logging

from stepwell.errors import ConfigError

_LEVELS = ("debug", "info", "warning", "error", "critical")


def configure(level: str) -> None:
    """Log to stderr from `level` up. Raises ConfigError for an unknown one."""
    if level.lower() not in _LEVELS:
        raise ConfigError(f"--log-level {level!r}: write one of {', '.join(_LEVELS)}")
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s %(process)d: %(message)s",
    )
