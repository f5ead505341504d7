"""Flow control: when a run may be made, when it may start, and when it is stopped.

One file an option or pair of them; `control.py` is the set that a function has. How the engine keeps them: `stepwell_engine.limits`.
"""

from stepwell.flow.cancel import Cancel, Timeouts
from stepwell.flow.concurrency import Concurrency
from stepwell.flow.control import FlowControl
from stepwell.flow.order import Priority, Singleton
from stepwell.flow.rates import RateLimit, Throttle
from stepwell.flow.windows import Batch, Debounce

__all__ = [
    "Batch",
    "Cancel",
    "Concurrency",
    "Debounce",
    "FlowControl",
    "Priority",
    "RateLimit",
    "Singleton",
    "Throttle",
    "Timeouts",
]
