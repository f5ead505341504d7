"""Each changed contact is pushed to the API: throttled to what it allows, and tried again when it says so."""

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from stepwell import Client, Context, NonRetriableError, RetryAfterError, Throttle, TriggerEvent

client = Client(app_id="crm")

ASKED_A_SECOND = 5  # the contract says 5; others use the account too, so at times it is fewer


def push(contact: dict[str, Any]) -> int:
    """One request. A plain function: it runs in a thread."""
    body = json.dumps({"name": contact["name"]}).encode()
    url = f"{contact['api']}/{contact['account']}/contacts/{contact['id']}"
    try:
        with urlopen(Request(url, data=body, method="PUT"), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        if error.code == 429:
            wait = f"{error.headers['Retry-After']}s"
            raise RetryAfterError(f"{contact['account']} asked too often", wait) from error
        if error.code < 500:
            raise NonRetriableError(f"the API refused contact {contact['id']}: {error}") from error
        raise  # is tried again, later and later


@client.create_function(
    fn_id="push-contact",
    trigger=TriggerEvent("crm/contact.changed"),
    # The throttle keeps to the contract; what goes wrong nevertheless is retried when the API says.
    throttle=Throttle(limit=ASKED_A_SECOND, period="1s", burst=2, key="event.data.account"),
    retries=10,
)
async def push_contact(ctx: Context) -> int:
    """One contact."""
    return await ctx.step.run("push", push, ctx.event.data)
