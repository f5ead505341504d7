"""Pushes contacts of two accounts to an API that allows less than was agreed: `python -m examples.rate_limited_api.main`."""

import asyncio
import logging
import sys
from collections import Counter

from examples.rate_limited_api.api import Api
from examples.rate_limited_api.app import ASKED_A_SECOND, client
from examples.waiting import one_that_waits
from stepwell import Event, RunStatus
from stepwell.testing import Engine

NAMES = ("Ada", "Bo", "Cleo", "Dov", "Edda", "Femi", "Gus", "Hana")
ALLOWED = 4


async def main(contacts: int = 24) -> int:
    """Run it to its end on an embedded server; 0 if every contact arrived."""
    accounts = ("north", "south")
    with Api(limit=ALLOWED) as api:
        async with Engine(client) as engine:
            began = engine.now()
            data = [
                {
                    "id": f"c{n}",
                    "name": NAMES[n % len(NAMES)],
                    "account": accounts[n % 2],
                    "api": api.url,
                }
                for n in range(contacts)
            ]
            ids = await engine.send([Event("crm/contact.changed", each) for each in data])
            print(f"{contacts} contacts changed; one of those that wait:")
            print(f"  {await one_that_waits(engine, ids, 'throttle')}\n")
            runs = [await engine.wait(event_id, timeout=60) for event_id in ids]
            took = (engine.now() - began).total_seconds()
        tries = Counter(len(step.attempts) + 1 for run in runs for step in run.steps)
    good = all(run.status is RunStatus.COMPLETED for run in runs) and len(api.contacts) == contacts
    print(
        f"{len(api.contacts)} contacts arrived in {took:.1f} s, asked for at {ASKED_A_SECOND} a second"
    )
    print(
        f"the API answered {dict(sorted(api.answers.items()))}; tries a contact: {dict(sorted(tries.items()))}"
    )
    for account, most in sorted(api.most_a_second.items()):
        print(f"  {account}: at most {most} accepted in one second, {ALLOWED} are allowed")
    return 0 if good else 1


if __name__ == "__main__":
    logging.getLogger("stepwell").setLevel(logging.ERROR)  # what is told of here is expected
    sys.exit(asyncio.run(main()))
