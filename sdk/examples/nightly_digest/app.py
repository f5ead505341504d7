"""At six in the morning, in Berlin, everyone with news gets a mail: a cron finds who, an event goes to each, mails leave in batches."""

from collections import defaultdict
from typing import Any

from stepwell import Batch, Client, Context, Event, RateLimit, TriggerCron, TriggerEvent

client = Client(app_id="news")

NEWS: dict[str, list[str]] = defaultdict(list)
"""User → what is new for them: what a database would have."""

SENT: list[list[tuple[str, str]]] = []
"""Each call of the mail service: (user, text) of up to MAILS mails."""

MAILS = 50


def take_news() -> dict[str, list[str]]:
    """Whoever has news, with the news; they are no news any more."""
    found = {user: list(lines) for user, lines in NEWS.items() if lines}
    NEWS.clear()
    return found


def send_mails(mails: list[tuple[str, str]]) -> int:
    """One call of the mail service takes many mails."""
    assert len(mails) <= MAILS
    SENT.append(mails)
    return len(mails)


@client.create_function(
    fn_id="nightly-digest",
    # Every day there is, also those of 23 and 25 hours. After an outage the last night is made up for, once.
    trigger=TriggerCron("0 6 * * *", timezone="Europe/Berlin", jitter="1m", catchup="last"),
)
async def nightly_digest(ctx: Context) -> int:
    """Finds who has news and sends an event for each: what fails for one is nothing to the others."""
    found = await ctx.step.run("take-news", take_news)
    day = ctx.event.data["scheduledAt"][:10]
    events = [
        Event("news/digest.due", {"user": user, "day": day, "lines": lines}, id=f"{day}:{user}")
        for user, lines in found.items()
    ]
    if events:
        await ctx.step.send_event("fan-out", events)
    return len(events)


@client.create_function(
    fn_id="send-digests",
    trigger=TriggerEvent("news/digest.due"),
    batch_events=Batch(max_size=MAILS, timeout="30s"),
)
async def send_digests(ctx: Context) -> int:
    """One call for many mails."""
    mails = [(e.data["user"], f"{e.data['day']}: {len(e.data['lines'])} news") for e in ctx.events]
    return await ctx.step.run("send", send_mails, mails)


@client.create_function(
    fn_id="welcome",
    trigger=TriggerEvent("news/digest.due", "event.data.lines.size() > 3"),
    rate_limit=RateLimit(limit=1, period="20h", key="event.data.user"),
)
async def welcome(ctx: Context) -> dict[str, Any]:
    """Who reads a lot is told about the app, once a day at most."""
    return {"user": ctx.event.data["user"]}
