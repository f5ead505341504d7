"""The smaller examples, as their mains run them: to the end, as expected. (The order pipeline is in tests/cli.)"""

import re

import pytest

from examples.document_pipeline import main as documents
from examples.nightly_digest import main as digest
from examples.rate_limited_api import main as api
from examples.search_indexer import main as indexer

pytestmark = pytest.mark.anyio


async def test_contacts_arrive_though_the_api_refuses_some(capsys):
    assert await api.main(contacts=16) == 0
    said = capsys.readouterr().out
    assert "held back by the throttle of event.data.account" in said
    answers = re.search(r"the API answered \{200: 16, 429: (\d+)\}", said)
    assert answers, said
    assert int(answers[1]) > 0
    assert len(re.findall(r"at most [1-4] accepted in one second", said)) == 2


async def test_the_index_follows_the_documents(capsys):
    assert await indexer.main() == 0
    said = capsys.readouterr().out
    assert "its debounce has 1 event so far" in said
    assert "180 edits of 3 documents came to 8 runs" in said
    assert "search 'roof': ['minutes', 'novel']" in said


async def test_digests_come_at_six_whatever_the_clocks_do(capsys):
    assert await digest.main() == 0
    said = capsys.readouterr().out
    assert "30 Mar, 06:00 CET" in said
    assert "31 Mar, 06:00 CEST" in said
    assert f"{digest.DAYS} digests, 440 mails in 12 calls" in said


async def test_no_tenant_waits_for_anothers_flood(capsys):
    assert await documents.main() == 0
    said = capsys.readouterr().out
    # Which of the two limits a key is parked at depends on the moment.
    assert re.search(
        r"held back by the concurrency limit of (2 steps of event.data.tenant|6 steps)", said
    )
    assert "limits held: True; nobody waited for the flood: True" in said
