"""Testing durable functions: `Engine` runs all of Stepwell in one process, on a clock you move.

`mocked` (imported as `from stepwell.testing import mocked`) runs one function without any server.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.testing.engine import Engine, EngineError

__all__ = ["Engine", "EngineError"]


def __getattr__(name: str) -> Any:
    # pytest imports this package for its plugin in every project that has Stepwell installed; the
    # engine is loaded only by the tests that use it.
    if name in __all__:
        from stepwell.testing import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
