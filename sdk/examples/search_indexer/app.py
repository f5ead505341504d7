"""Documents are edited key by key and indexed once the author rests: debounced by document, five minutes at most behind."""

import re
from typing import Any

from stepwell import Client, Concurrency, Context, Debounce, TriggerEvent

client = Client(app_id="search")

DOCUMENTS: dict[str, str] = {}
"""The documents as they are: what an editor's database would have."""

INDEX: dict[str, set[str]] = {}
"""Word → the documents that have it."""


def load(document: str) -> str:
    """The text as it is now, which may be later than the event."""
    return DOCUMENTS[document]


def index(document: str, text: str) -> int:
    """Replace what the index says of a document; doing it twice changes nothing."""
    words = set(re.findall(r"\w+", text.lower()))
    for known in INDEX.values():
        known.discard(document)
    for word in words:
        INDEX.setdefault(word, set()).add(document)
    return len(words)


def search(query: str) -> list[str]:
    """The documents that have all the words."""
    words = query.lower().split()
    return sorted(doc for doc in DOCUMENTS if all(doc in INDEX.get(word, ()) for word in words))


@client.create_function(
    fn_id="index-document",
    trigger=TriggerEvent("doc/edited"),
    debounce=Debounce(period="30s", timeout="5m", key="event.data.document", collect=True),
    # Two runs of one document must not overtake each other.
    concurrency=Concurrency(limit=1, key="event.data.document"),
)
async def index_document(ctx: Context) -> dict[str, Any]:
    """One document, for all the edits since the last time."""
    document = ctx.event.data["document"]
    text = await ctx.step.run("load", load, document)
    words = await ctx.step.run("index", index, document, text)
    return {
        "document": document,
        "edits": len(ctx.events),
        "words": words,
        "by": sorted({event.data["by"] for event in ctx.events}),
    }
