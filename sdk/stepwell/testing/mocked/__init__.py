"""One function without a server: its steps run here and now, or are stubbed by their ids.

For what goes on between functions, and for time, use `stepwell.testing.Engine`.
"""

from stepwell.testing.mocked.client import Client
from stepwell.testing.mocked.run import trigger
from stepwell.testing.mocked.values import Result, Status, Timeout, UnstubbedStepError

__all__ = ["Client", "Result", "Status", "Timeout", "UnstubbedStepError", "trigger"]
