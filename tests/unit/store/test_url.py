"""Redis URLs."""

import pytest

from stepwell_engine.store.url import Endpoint, ServerUrlError, parse


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://example", Endpoint("example")),
        ("redis://", None),
        ("redis://example:7000/2", Endpoint("example", 7000, db=2)),
        ("valkey://example", Endpoint("example")),
        ("REDIS://example", Endpoint("example")),
        ("redis://example?db=4", Endpoint("example", db=4)),
        ("redis://:s%40cret@example", Endpoint("example", password="s@cret")),
        ("redis://ann:pw@example", Endpoint("example", username="ann", password="pw")),
        ("redis://[::1]:7000", Endpoint("::1", 7000)),
        ("unix:///run/redis.sock", Endpoint(path="/run/redis.sock")),
        ("unix://:pw@/run/redis.sock?db=1", Endpoint(path="/run/redis.sock", db=1, password="pw")),
    ],
)
def test_one_server(url: str, endpoint: Endpoint | None) -> None:
    if endpoint is None:
        with pytest.raises(ServerUrlError, match=r"write redis://"):
            parse(url)
    else:
        assert parse(url).seeds == (endpoint,)


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls(scheme: str) -> None:
    (endpoint,) = parse(f"{scheme}://example").seeds
    assert endpoint.tls is not None
    assert endpoint.tls.check_hostname
    (lax,) = parse(f"{scheme}://example?ssl_cert_reqs=none&ssl_min_version=771").seeds
    assert lax.tls is not None
    assert not lax.tls.check_hostname


def test_seeds_of_a_cluster() -> None:
    target = parse("redis://:pw@one:7000,two:7001,three/0")
    assert [str(s) for s in target.seeds] == ["one:7000", "two:7001", "three:6379"]
    assert {s.password for s in target.seeds} == {"pw"}
    assert target.master is None


def test_sentinels() -> None:
    target = parse(
        "redis+sentinel://ann:pw@one,two:5000/jobs/3?sentinel_username=s&sentinel_password=t"
    )
    assert target.service == "jobs"
    assert [str(s) for s in target.seeds] == ["one:26379", "two:5000"]
    assert {(s.username, s.password, s.db) for s in target.seeds} == {("s", "t", 0)}
    assert target.master is not None
    assert (target.master.username, target.master.password, target.master.db) == ("ann", "pw", 3)
    assert str(target.master.at("ten", 6380)) == "ten:6380"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "isn't one"),
        ("example:6379", "isn't one"),
        ("http://example", "isn't one"),
        ("redis+proxy://example", "isn't one"),
        ("redis://example/jobs", "must be a number"),
        ("redis://example:port", "redis://example:port"),
        ("redis://example?db=x", "'db'"),
        ("redis://example?retries=3", "options that mean nothing here: retries"),
        ("redis+sentinel://example", "names no service"),
        ("rediss://example?ssl_ca_certs=/no/such/file", "No such file"),
    ],
)
def test_refused(url: str, says: str) -> None:
    with pytest.raises(ServerUrlError, match=says):
        parse(url)


def test_passwords_are_never_shown() -> None:
    endpoint = parse("redis://:hidden@example").seeds[0]
    assert "hidden" not in f"{endpoint} {endpoint!r}"
    for url in (
        "redis://:hidden@example/x",
        "redis+sentinel://a:hidden@b?sentinel_password=hidden",
    ):
        with pytest.raises(ServerUrlError) as caught:
            parse(url)
        assert "hidden" not in str(caught.value)
