"""What has been said need not be said again: troubles that come with every event are logged once, then only counted."""

from collections.abc import Hashable
from typing import Final

MOST: Final = 1_000


class Once:
    """Whether something comes for the first time. After 1,000 different things nothing does: texts may hold users' data.

    >>> once = Once()
    >>> once("shop-f", "no such zone"), once("shop-f", "no such zone")
    (True, False)
    """

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: set[tuple[Hashable, ...]] = set()

    def __call__(self, *what: Hashable) -> bool:
        """True the first time it is asked about `what`."""
        if what in self._said or len(self._said) >= MOST:
            return False
        self._said.add(what)
        return True
