"""An hour of editing in a moment, by a virtual clock: `python -m examples.search_indexer.main`."""

import asyncio
import logging
import sys
from collections.abc import Iterator

from examples.search_indexer.app import DOCUMENTS, INDEX, client, search
from stepwell import Event
from stepwell.testing import Engine

BURSTS = {
    # document: (begins at second, so many edits, so many seconds apart)
    "minutes": [(0, 20, 5), (900, 6, 10)],
    "novel": [(60, 150, 8)],  # twenty minutes without a rest
    "recipe": [(300, 3, 2), (2400, 1, 1)],
}
TEXTS = {
    "minutes": "agenda budget roof",
    "novel": "the roof of the old house",
    "recipe": "flour water salt",
}


def edits() -> list[tuple[int, str, int]]:
    """(second, document, which edit), in order of time."""

    def each() -> Iterator[tuple[int, str, int]]:
        for document, bursts in BURSTS.items():
            count = 0
            for begin, many, apart in bursts:
                for n in range(many):
                    count += 1
                    yield begin + n * apart, document, count

    return sorted(each())


async def main() -> int:
    """Run it to its end on an embedded server; 0 if the index has what the documents say."""
    DOCUMENTS.clear()
    INDEX.clear()
    done = edits()
    async with Engine(client) as engine:
        began = engine.now()
        for second, document, n in done:
            left = second - (engine.now() - began).total_seconds()
            if left > 0:
                await engine.advance(int(left * 1000))
            DOCUMENTS[document] = f"{TEXTS[document]} edit{n}"
            by = "mia" if n % 2 else "tom"
            [event_id] = await engine.send(Event("doc/edited", {"document": document, "by": by}))
            if n == 1:
                await engine.settle()
                print(await engine.client.explain((await engine.event(event_id)).run_ids[0]))
        await engine.advance("10m")
        runs = await engine.runs("index-document")
    runs.sort(key=lambda run: run.ended_at or began)
    print(f"\n{len(done)} edits of {len(BURSTS)} documents came to {len(runs)} runs:")
    for run in runs:
        assert run.ended_at is not None
        minute = (run.ended_at - began).total_seconds() / 60
        found = run.output
        print(
            f"  minute {minute:4.1f}: {found['document']}, {found['edits']} edit(s) by {' and '.join(found['by'])}"
        )
    print(f"\nsearch 'roof': {search('roof')}")
    wanted = {
        document: f"edit{sum(many for _, many, _ in bursts)}" for document, bursts in BURSTS.items()
    }
    good = all(search(word) == [document] for document, word in wanted.items())
    good = good and sum(run.output["edits"] for run in runs) == len(done)
    print("the index has each document's last edit" if good else "the index is NOT up to date")
    return 0 if good else 1


if __name__ == "__main__":
    logging.getLogger("stepwell").setLevel(logging.ERROR)  # what is told of here is expected
    sys.exit(asyncio.run(main()))
