"""Redis URLs to values: where the server is (standalone, Sentinel, Cluster) and how to log in.

redis-py parses each single URL; lists of hosts and the Sentinel scheme are ours.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import urlsplit

from redis.asyncio.connection import RedisSSLContext, parse_url

from stepwell.errors import StepwellError

_SCHEME = re.compile(r"(?P<tls>rediss|valkeys)|redis|valkey|unix")
_FORMS = (
    "redis://[user:password@]host[:port][/db], rediss:// for TLS, unix:///path, "
    "redis://host1,host2,host3 for a Cluster, or redis+sentinel://host1,host2/service[/db]"
)
_SSL_NAMES = {f"ssl_{n}" for n in ("keyfile", "certfile", "ca_certs", "ca_data", "ca_path")} | {
    f"ssl_{n}" for n in ("cert_reqs", "check_hostname", "ciphers", "password", "min_version")
}
_KNOWN = _SSL_NAMES | {"host", "port", "path", "db", "username", "password", "connection_class"}


class ServerUrlError(StepwellError, ValueError):
    """The Redis URL can't be understood; the message shows the forms that can."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server process to connect to. `str(endpoint)` is safe to log: it has no password."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str = ""  # of a unix socket; wins over host and port
    db: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def at(self, host: str, port: int) -> "Endpoint":
        """Another address with the same login, database and TLS settings."""
        return replace(self, host=host, port=port, path="")


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names: seed endpoints, or Sentinels and the service they watch."""

    seeds: tuple[Endpoint, ...]
    service: str = ""  # non-empty: `seeds` are Sentinels
    master: Endpoint | None = None  # login, db and TLS for the master that Sentinels name


def parse(url: str) -> Target:
    """Reads a server URL.

    `redis://`, `rediss://`, `valkey://`, `valkeys://`, `unix://`; several `host:port` with commas
    are seeds of one Cluster; `redis+sentinel://h1,h2:26379/service/db` goes through Sentinel
    (its own login: `?sentinel_username=…&sentinel_password=…`). TLS options as in redis-py
    (`?ssl_ca_certs=…&ssl_cert_reqs=none`). Raises ServerUrlError.

        parse("rediss://:secret@redis.example.com/1").seeds[0].db  # 1
    """
    scheme, _, rest = url.partition("://")
    base, plus, mode = scheme.lower().partition("+")
    match = _SCHEME.fullmatch(base)
    if match is None or not rest or (plus and mode not in ("sentinel", "cluster")):
        raise ServerUrlError(f"the Redis URL {_hidden(url)!r} isn't one; write {_FORMS}")
    if base == "unix":
        return Target((_endpoint(f"unix://{rest}", url),))
    base = "rediss" if match["tls"] else "redis"
    authority, slash, tail = rest.partition("/")
    if not slash:
        authority, mark, query = rest.partition("?")
        tail = mark + query
    login, at, hosts = authority.rpartition("@")
    addresses = hosts.split(",")
    if mode == "sentinel":
        return _sentinel(f"{base}://{login}{at}", base, addresses, tail, url)
    return Target(tuple(_endpoint(f"{base}://{login}{at}{h}/{tail}", url) for h in addresses))


def _sentinel(prefix: str, base: str, addresses: list[str], tail: str, url: str) -> Target:
    path, mark, query = tail.partition("?")
    service, _, db = path.partition("/")
    if not service:
        raise ServerUrlError(
            f"the Sentinel URL {_hidden(url)!r} names no service; "
            "write redis+sentinel://host1,host2/service[/db]"
        )
    own: dict[str, str] = {}

    def take(match: re.Match[str]) -> str:
        own[match[1]] = match[2]
        return ""

    query = re.sub(r"sentinel_(username|password)=([^&]*)&?", take, query)
    user, password = own.get("username", ""), own.get("password", "")
    login = f"{user}:{password}@" if user or password else ""
    seeds = (
        _endpoint(f"{base}://{login}{a if ':' in a else f'{a}:26379'}/{mark}{query}", url)
        for a in addresses
    )
    return Target(tuple(seeds), service, _endpoint(f"{prefix}master/{db}{mark}{query}", url))


def _endpoint(single: str, url: str) -> Endpoint:
    try:
        found = cast("Mapping[str, Any]", parse_url(single))
        split = urlsplit(single)
        tls = _tls(found) if split.scheme == "rediss" else None
        path = split.path.strip("/")
        if split.scheme == "redis" and path and not path.isdigit():
            raise ValueError(f"the database must be a number, not {path!r}")
    except (ValueError, OSError) as error:
        raise ServerUrlError(f"the Redis URL {_hidden(url)!r}: {error}; write {_FORMS}") from error
    if unknown := sorted(set(found) - _KNOWN):
        raise ServerUrlError(
            f"the Redis URL {_hidden(url)!r} has options that mean nothing here: "
            f"{', '.join(unknown)}; known ones: {', '.join(sorted(_SSL_NAMES))}, db"
        )
    return Endpoint(
        host=found.get("host") or "127.0.0.1",
        port=found.get("port") or 6379,
        path=found.get("path") or "",
        db=int(found.get("db") or 0),
        username=found.get("username") or "",
        password=found.get("password") or "",
        tls=tls,
    )


def _tls(found: Mapping[str, Any]) -> ssl.SSLContext:
    options: dict[str, Any] = {"cert_reqs": "required", "check_hostname": True}
    options |= {k.removeprefix("ssl_"): v for k, v in found.items() if k in _SSL_NAMES}
    minimum = options.pop("min_version", None)
    context = cast("ssl.SSLContext", cast("Any", RedisSSLContext(**options)).get())
    if minimum is not None:
        context.minimum_version = minimum
    return context


def _hidden(url: str) -> str:
    hidden = re.sub(r"(://[^@/]*:)[^@]*@", r"\1***@", url)
    return re.sub(r"((?:sentinel_|ssl_)?password=)[^&]*", r"\1***", hidden)
