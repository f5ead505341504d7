"""A flood of one tenant, and a few documents of others behind it: `python -m examples.document_pipeline.main`."""

import asyncio
import logging
import sys
from collections import Counter, defaultdict
from statistics import median

from examples.document_pipeline.app import AT_ONCE, BUSY, MOST, PER_TENANT, client
from examples.waiting import one_that_waits
from stepwell import Event, Run, RunStatus
from stepwell.testing import Engine

TENANTS = {"flood": (120, "free"), "acme": (10, "pro"), "bolt": (6, "free"), "cato": (6, "free")}


def uploads() -> list[Event]:
    """All at once, the flood first. The last document of each tenant is urgent."""
    found = [
        {"tenant": tenant, "plan": plan, "name": f"{tenant}-inv{n}", "urgent": n == count - 1}
        for tenant, (count, plan) in TENANTS.items()
        for n in range(count)
    ]
    return [Event("doc/uploaded", data) for data in found]


def waited(run: Run) -> float:
    """Seconds between upload and beginning."""
    assert run.started_at is not None
    return (run.started_at - run.created_at).total_seconds()


async def main() -> int:
    """Run it to its end on an embedded server; 0 if the limits held and nobody waited for the flood."""
    BUSY.clear()
    MOST.clear()
    async with Engine(client) as engine:
        ids = await engine.send(uploads())
        deleted = "flood-inv100"
        await engine.send(Event("doc/deleted", {"name": deleted}))
        print(f"{len(ids)} documents at once. One that waits:")
        print(f"  {await one_that_waits(engine, ids[60:120], 'concurrency')}\n")
        runs = [await engine.wait(event_id, timeout=60) for event_id in ids]
    of: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        of[run.events[0].data["tenant"]].append(run)
    print(
        f"{'tenant':8}{'plan':6}{'done':>5}{'cancelled':>11}{'median wait':>13}{'longest':>9}{'at once':>9}"
    )
    for tenant, (_, plan) in TENANTS.items():
        states = Counter(run.status for run in of[tenant])
        waits = [waited(run) for run in of[tenant] if run.started_at] or [0.0]
        print(
            f"{tenant:8}{plan:6}{states[RunStatus.COMPLETED]:5}{states[RunStatus.CANCELLED]:11}"
            f"{median(waits):12.2f}s{max(waits):8.2f}s{MOST[tenant]:9}"
        )
    urgent = next(run for run in of["flood"] if run.events[0].data["urgent"])
    print(f"\nthe flood's urgent document, uploaded last, waited {waited(urgent):.2f} s")
    begun = {tenant: [waited(run) for run in of[tenant] if run.started_at] for tenant in TENANTS}
    fair = all(max(begun[t], default=9e9) < max(begun["flood"]) for t in TENANTS if t != "flood")
    held = all(MOST[tenant] <= PER_TENANT for tenant in TENANTS) and MOST[""] <= AT_ONCE
    gone = [run.events[0].data["name"] for run in runs if run.status is RunStatus.CANCELLED] == [
        deleted
    ]
    print(
        f"limits held: {held}; nobody waited for the flood: {fair}; the deleted one was cancelled: {gone}"
    )
    return 0 if held and fair and gone else 1


if __name__ == "__main__":
    logging.getLogger("stepwell").setLevel(logging.ERROR)  # what is told of here is expected
    sys.exit(asyncio.run(main()))
