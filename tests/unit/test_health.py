"""/metrics, /healthz, /readyz."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from stepwell.errors import ConfigError
from stepwell_engine.health import Health


class Age:
    value: float | None = None


@pytest.fixture
def age() -> Age:
    return Age()


@pytest.fixture
def health(age: Age) -> Iterator[Health]:
    registry = CollectorRegistry()
    Counter("stepwell_tests", "tests", registry=registry).inc(3)
    with Health(0, host="127.0.0.1", registry=registry, age=lambda: age.value) as health:
        yield health


def get(health: Health, path: str, method: str = "GET") -> tuple[int, str, str]:
    url = f"http://127.0.0.1:{health.port}{path}"
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.headers["Content-Type"], reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_metrics(health: Health) -> None:
    status, kind, body = get(health, "/metrics?x=1")
    assert status == 200
    assert kind.startswith("text/plain")
    assert "stepwell_tests_total 3.0" in body


def test_alive_and_unknown(health: Health) -> None:
    assert get(health, "/healthz")[::2] == (200, "ok\n")
    assert get(health, "/healthz", "HEAD")[::2] == (200, "")
    assert get(health, "/nothing")[::2] == (404, "there are /metrics, /healthz and /readyz\n")


def test_ready_follows_the_last_poll(health: Health, age: Age) -> None:
    status, _, body = get(health, "/readyz")
    assert status == 503
    assert body == "not ready: no successful poll of Redis within 30 s (none yet)\n"
    age.value = 1.0
    assert get(health, "/readyz")[::2] == (200, "ok\n")
    age.value = 30.25
    status, _, body = get(health, "/readyz")
    assert status == 503
    assert "(the last was 30.2 s ago)" in body


def test_port_taken(health: Health) -> None:
    registry = CollectorRegistry()
    second = Health(health.port, host="127.0.0.1", registry=registry, age=lambda: None)
    with pytest.raises(ConfigError, match="write another --metrics-port"):
        second.start()
    second.stop()
