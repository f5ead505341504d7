"""What tests of limits share: engines on one shard and on four, and a gauge of what is at work."""

from functools import partial

import pytest

from tests.support.gauge import Gauge


@pytest.fixture(params=[1, 4])
def engines(request, stepwell_engine):
    """Engines on one shard, and on four."""
    return partial(stepwell_engine, shards=request.param)


@pytest.fixture
def gauge():
    return Gauge()
