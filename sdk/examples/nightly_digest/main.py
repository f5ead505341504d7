"""A week of mornings in a moment, one of them of a day with 23 hours: `python -m examples.nightly_digest.main`."""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from examples.nightly_digest.app import MAILS, NEWS, SENT, client
from stepwell.testing import Engine

BERLIN = ZoneInfo("Europe/Berlin")
FIRST_DAY = datetime(2030, 3, 27, 12, tzinfo=UTC)  # clocks go forward on Sunday, the 31st
DAYS = 7
USERS = 120


def write_news(day: int) -> int:
    """News of one day: more on some days than on others, none on the fourth. How many users have any."""
    for n in range(0, 0 if day == 3 else USERS, 1 + day % 3):
        NEWS[f"user{n}"] += [f"item {i}" for i in range(1 + n % 5)]
    return sum(1 for lines in NEWS.values() if lines)


async def main() -> int:
    """Run it to its end on an embedded server; 0 if everyone with news had one mail a day."""
    NEWS.clear()
    SENT.clear()
    wanted = 0
    async with Engine(client, start=FIRST_DAY) as engine:
        for day in range(DAYS):
            wanted += write_news(day)
            await engine.advance("1d")
        nights = await engine.runs("nightly-digest")
        batches = await engine.runs("send-digests")
        told = await engine.runs("welcome")
    print(
        f"{DAYS} days, {len(nights)} digests, {wanted} mails in {len(SENT)} calls of the mail service:"
    )
    for run in nights:
        assert run.started_at is not None
        at = run.started_at.astimezone(BERLIN)
        print(f"  {at:%a %d %b, %H:%M %Z}: {run.output} users with news")
    sizes = sorted((len(mails) for mails in SENT), reverse=True)
    print(f"batches: {sizes}, of {MAILS} at most; {len(told)} readers were told about the app")
    mails = [mail for call in SENT for mail in call]
    good = len(mails) == len(set(mails)) == wanted and len(nights) == DAYS
    good = (
        good
        and len(batches) == len(SENT)
        and {r.started_at.astimezone(BERLIN).hour for r in nights if r.started_at} == {6}
    )
    print(
        "each user with news had one mail a day, at six"
        if good
        else "mails are NOT as they should be"
    )
    return 0 if good else 1


if __name__ == "__main__":
    logging.getLogger("stepwell").setLevel(logging.ERROR)  # what is told of here is expected
    sys.exit(asyncio.run(main()))
