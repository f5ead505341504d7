"""How many runs are at work at the same time, as user code under a limit sees it."""

import asyncio
from collections import Counter
from collections.abc import Hashable

from tests.support.runs import until


class Gauge:
    """How many of each name are at work, and the most there ever were. `open` lets them end."""

    def __init__(self) -> None:
        self.now, self.most = Counter[Hashable](), Counter[Hashable]()
        self.order: list[Hashable] = []
        self.open = asyncio.Event()

    async def at_work(self, *names: Hashable) -> None:
        """What a function under test does; `order` gets the first name."""
        self.order.append(names[0])
        for name in names:
            self.now[name] += 1
            self.most[name] = max(self.most[name], self.now[name])
        try:
            await self.open.wait()
            await asyncio.sleep(0.002)
        finally:
            for name in names:
                self.now[name] -= 1

    async def reaches(self, name: Hashable, count: int) -> None:
        """So many of a name are at work, and no more come."""
        await until(lambda: self.now[name] >= count)
        # Whoever could still come would come now.
        await asyncio.sleep(0.1)
        assert self.now[name] == count
