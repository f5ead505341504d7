"""Each tenant's documents are processed two at a time, and all of them six at a time; tenants take turns, urgent documents come first."""

import asyncio
from collections import Counter, defaultdict
from typing import Any

from stepwell import Cancel, Client, Concurrency, Context, Priority, Timeouts, TriggerEvent

client = Client(app_id="documents")

PER_TENANT = 2
AT_ONCE = 6
WORK = 0.015  # seconds a step takes

BUSY: Counter[str] = Counter()
MOST: defaultdict[str, int] = defaultdict(int)
"""How many steps of a tenant were at work at once, now and at most; "" for all."""


async def work(tenant: str) -> None:
    """What a step costs; and what the limits promise, observed."""
    for name in (tenant, ""):
        BUSY[name] += 1
        MOST[name] = max(MOST[name], BUSY[name])
    await asyncio.sleep(WORK)
    for name in (tenant, ""):
        BUSY[name] -= 1


async def extract(document: dict[str, Any]) -> str:
    """The text of a scanned page."""
    await work(document["tenant"])
    return f"text of {document['name']}"


async def classify(document: dict[str, Any], text: str) -> str:
    """What kind of document it is."""
    await work(document["tenant"])
    return "invoice" if "inv" in text else "letter"


@client.create_function(
    fn_id="process",
    trigger=TriggerEvent("doc/uploaded"),
    concurrency=[
        # Keys take turns, so ten thousand documents of one tenant don't hold up another's ten; who pays more has more turns.
        Concurrency(
            limit=PER_TENANT, key="event.data.tenant", weight="event.data.plan == 'pro' ? 3 : 1"
        ),
        # What the machine can do, whosever documents they are.
        Concurrency(limit=AT_ONCE),
    ],
    # Among the documents of one tenant: as if it had come ten minutes earlier.
    priority=Priority(run="event.data.urgent ? 600 : 0"),
    cancel=Cancel("doc/deleted", match="data.name"),
    timeouts=Timeouts(start="1h"),
)
async def process(ctx: Context) -> dict[str, str]:
    """From a page to a labelled text."""
    document = ctx.event.data
    text = await ctx.step.run("extract", extract, document)
    return {
        "tenant": document["tenant"],
        "kind": await ctx.step.run("classify", classify, document, text),
    }
