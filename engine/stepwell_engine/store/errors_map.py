"""What a server's error reply means: an exception class, whether trying again helps, and advice."""

import re

from redis import exceptions as redis_errors

from stepwell.errors import (
    ServerAuthError,
    ServerError,
    ServerFullError,
    ServerLoadingError,
    ServerReadOnlyError,
    ServerTooOldError,
    ServerUnavailableError,
    StepwellError,
)
from stepwell_engine.store.url import Endpoint, ServerUrlError

FLOOR = (6, 2)


class TransientError(redis_errors.ResponseError):
    """The server can't do it just now: MISCONF, NOREPLICAS, BUSY, UNBLOCKED, LOADING."""


class LoadingError(TransientError):
    """The server is still reading its data."""


_CLASSES: dict[str, type[redis_errors.ResponseError]] = {
    "NOSCRIPT": redis_errors.NoScriptError,
    "READONLY": redis_errors.ReadOnlyError,
    "LOADING": LoadingError,
    "TRYAGAIN": redis_errors.TryAgainError,
    "CLUSTERDOWN": redis_errors.ClusterDownError,
    "MASTERDOWN": redis_errors.MasterDownError,
    "CROSSSLOT": redis_errors.ClusterCrossSlotError,
    "MOVED": redis_errors.MovedError,
    "ASK": redis_errors.AskError,
    "OOM": redis_errors.OutOfMemoryError,
    "MISCONF": TransientError,
    "NOREPLICAS": TransientError,
    "BUSY": TransientError,
    "UNBLOCKED": TransientError,
}
_AUTH_CODES = ("NOAUTH", "WRONGPASS", "NOPERM")
_NO_FUNCTION = "ERR Function not found"
_NEEDS_NONE = "AUTH <password> called without any password"

# Before 7.0 an error inside a script is wrapped: "ERR Error running script (…): … -READONLY …".
_WRAPPED = re.compile(
    r"^ERR Error (?:running|compiling) script .*?: -(?P<inner>[A-Z]+ .*)", re.DOTALL
)

RETRYABLE: tuple[type[Exception], ...] = (
    redis_errors.ReadOnlyError,
    redis_errors.TryAgainError,
    redis_errors.ClusterDownError,  # and MasterDownError
    redis_errors.OutOfMemoryError,
    TransientError,
)
"""Replies after which the same idempotent command may succeed later, perhaps on another node."""

AGAIN: tuple[type[Exception], ...] = (*RETRYABLE, ServerUnavailableError)
"""The same, and lost connections."""


def reply_error(endpoint: Endpoint, text: str) -> Exception:
    """The exception for an error reply; its text is the whole reply, code first.

    ServerAuthError for NOAUTH, WRONGPASS and NOPERM, else a redis.exceptions.ResponseError. MOVED
    and ASK carry `slot_id`, `host` and `port` as in redis-py.
    """
    if wrapped := _WRAPPED.match(text):
        text = wrapped["inner"]
    if text == _NO_FUNCTION:
        return redis_errors.NoScriptError(text)
    code, _, rest = text.partition(" ")
    if code in _AUTH_CODES or _NEEDS_NONE in text:
        return auth_error(endpoint, text)
    found = _CLASSES.get(code)
    if found is None:
        return redis_errors.ResponseError(text)
    if issubclass(found, redis_errors.AskError):
        return found(rest)  # parses its argument
    return found(text)


def auth_error(endpoint: Endpoint, text: str) -> ServerAuthError:
    """For NOAUTH, WRONGPASS, NOPERM: trying again can't help, so say what to change."""
    if text.startswith("NOAUTH"):
        what = "the server asks for a password; write redis://:PASSWORD@host, or USER:PASSWORD@host"
    elif text.startswith("NOPERM"):
        user = endpoint.username or "default"
        what = f"user {user!r} lacks a permission; grant it with ACL SETUSER {user} ~* +@all"
    elif _NEEDS_NONE in text:
        what = "the server has no password for this user; leave the password out of the URL"
    else:
        what = "user or password is wrong; check the URL (percent-encode special characters)"
    return ServerAuthError(f"Redis at {endpoint}: {what}. The server said: {text}")


def login_error(endpoint: Endpoint, error: redis_errors.ResponseError) -> StepwellError:
    """For a refusal while connecting that isn't about the password."""
    text = str(error)
    if "SELECT" in text or "DB index" in text:
        return ServerUrlError(
            f"Redis at {endpoint} has no database {endpoint.db}: {text}; leave /{endpoint.db} out "
            "of the URL (a Cluster has only database 0)"
        )
    return unavailable(endpoint, text)


def unavailable(endpoint: Endpoint | str, what: str) -> ServerUnavailableError:
    """No connection, or it was lost; what was sent may or may not have been done."""
    return ServerUnavailableError(
        f"Redis at {endpoint} is unavailable: {what}. Is it running, and is the address right? "
        "`stepwell dev` starts one for you"
    )


def final(endpoint: Endpoint, error: Exception) -> StepwellError:
    """What to raise when a retryable reply outlasts its deadline."""
    if isinstance(error, StepwellError):
        return error
    text = str(error)
    if isinstance(error, redis_errors.ReadOnlyError):
        return read_only(endpoint, text)
    kind: type[ServerError] = ServerUnavailableError
    advice = "see the server's log"
    if isinstance(error, redis_errors.OutOfMemoryError):
        kind, advice = ServerFullError, "raise maxmemory, or shorten the retention of ended runs"
    elif isinstance(error, LoadingError):
        kind, advice = ServerLoadingError, "it is still reading its data; wait"
    elif isinstance(error, redis_errors.ClusterDownError):
        advice = "some slots have no master; see CLUSTER INFO"
    return kind(f"Redis at {endpoint} can't do it now: {text} ({advice})")


def read_only(endpoint: Endpoint, detail: str) -> ServerReadOnlyError:
    return ServerReadOnlyError(
        f"Redis at {endpoint} is a read-only replica; give the URL of the master, or of the "
        f"Sentinels (redis+sentinel://host1,host2/service), which know it. {detail}"
    )


def too_old(endpoint: Endpoint, version: str) -> ServerTooOldError:
    return ServerTooOldError(
        f"Redis at {endpoint} is version {version}; Stepwell needs Redis 6.2 or newer, or Valkey. "
        "Upgrade the server"
    )
