"""Error replies to exceptions, in the words of 6.2 and of newer servers."""

import pytest
from redis import exceptions as redis_errors

from stepwell.errors import (
    ServerAuthError,
    ServerFullError,
    ServerLoadingError,
    ServerReadOnlyError,
    ServerUnavailableError,
)
from stepwell_engine.store.errors_map import (
    RETRYABLE,
    LoadingError,
    TransientError,
    final,
    login_error,
    reply_error,
)
from stepwell_engine.store.url import Endpoint, ServerUrlError

AT = Endpoint("example", username="ann", password="hidden")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ERR Function not found", redis_errors.NoScriptError),
        ("NOSCRIPT No matching script.", redis_errors.NoScriptError),
        ("READONLY You can't write against a read only replica.", redis_errors.ReadOnlyError),
        (
            "ERR Error running script (call to f_c1): @user_script:1: -READONLY You can't write",
            redis_errors.ReadOnlyError,
        ),
        ("LOADING Redis is loading the dataset in memory", LoadingError),
        ("MISCONF Redis is configured to save RDB snapshots", TransientError),
        ("NOREPLICAS Not enough good replicas to write.", TransientError),
        ("UNBLOCKED force unblock from blocking operation", TransientError),
        ("OOM command not allowed when used memory > 'maxmemory'.", redis_errors.OutOfMemoryError),
        ("CLUSTERDOWN The cluster is down", redis_errors.ClusterDownError),
        ("MASTERDOWN Link with MASTER is down", redis_errors.MasterDownError),
        ("TRYAGAIN Multiple keys request during rehashing of slot", redis_errors.TryAgainError),
        ("CROSSSLOT Keys in request don't hash", redis_errors.ClusterCrossSlotError),
        ("WRONGPASS invalid username-password pair", ServerAuthError),
        ("NOAUTH Authentication required.", ServerAuthError),
        ("NOPERM this user has no permissions to run the 'get' command", ServerAuthError),
        ("ERR AUTH <password> called without any password configured", ServerAuthError),
        ("ERR unknown command", redis_errors.ResponseError),
        ("", redis_errors.ResponseError),
    ],
)
def test_classes(text: str, expected: type[Exception]) -> None:
    assert type(reply_error(AT, text)) is expected


@pytest.mark.parametrize("text", ["OOM full", "LOADING x", "READONLY x", "CLUSTERDOWN x", "BUSY x"])
def test_what_is_worth_trying_again(text: str) -> None:
    assert isinstance(reply_error(AT, text), RETRYABLE)


@pytest.mark.parametrize("text", ["NOSCRIPT x", "WRONGTYPE x", "NOAUTH x", "CROSSSLOT x"])
def test_what_is_not(text: str) -> None:
    assert not isinstance(reply_error(AT, text), RETRYABLE)


def test_redirections() -> None:
    moved = reply_error(AT, "MOVED 3999 10.0.0.1:6381")
    assert isinstance(moved, redis_errors.MovedError)
    assert (moved.slot_id, moved.host, moved.port) == (3999, "10.0.0.1", 6381)
    ask = reply_error(AT, "ASK 3999 :6381")
    assert type(ask) is redis_errors.AskError
    assert (ask.host, ask.port) == ("", 6381)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("NOAUTH Authentication required.", "redis://:PASSWORD@host"),
        ("WRONGPASS invalid", "percent-encode"),
        ("NOPERM no permissions", "ACL SETUSER ann"),
        ("ERR AUTH <password> called without any password configured", "leave the password out"),
    ],
)
def test_advice_about_logins(text: str, says: str) -> None:
    message = str(reply_error(AT, text))
    assert says in message
    assert "example:6379" in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("OOM full", ServerFullError, "raise maxmemory"),
        ("LOADING wait", ServerLoadingError, "reading its data"),
        ("CLUSTERDOWN no", ServerUnavailableError, "CLUSTER INFO"),
        ("MISCONF no", ServerUnavailableError, "log"),
        ("READONLY no", ServerReadOnlyError, "URL of the master"),
    ],
)
def test_what_outlasts_a_deadline(text: str, kind: type[Exception], says: str) -> None:
    error = final(AT, reply_error(AT, text))
    assert type(error) is kind
    assert says in str(error)


def test_refusals_at_login() -> None:
    select = redis_errors.ResponseError("ERR SELECT is not allowed in cluster mode")
    assert isinstance(login_error(AT, select), ServerUrlError)
    full = redis_errors.ResponseError("ERR max number of clients reached")
    assert isinstance(login_error(AT, full), ServerUnavailableError)
