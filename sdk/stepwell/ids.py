"""Ids: ULIDs whose last characters tell the shard, step keys, and which shard things live on.

Everything that must be the same on redelivery is a hash of its causes, never random.
"""

from functools import lru_cache
from hashlib import blake2b, sha1
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32, as ULIDs use it."""
MAX_SHARDS: Final = 1024
MAX_TIME_MS: Final = (1 << 48) - 1

# Two characters (10 bits) a look-up: several times quicker than one character at a time.
_PAIRS: Final = tuple(a + b for a in ALPHABET for b in ALPHABET)
_VALUES: Final = {pair: number for number, pair in enumerate(_PAIRS)}
_CHARS: Final = frozenset(ALPHABET)


def _chars16(n: int) -> str:
    """80 bits as 16 characters."""
    p = _PAIRS
    return (
        p[n >> 70]
        + p[n >> 60 & 1023]
        + p[n >> 50 & 1023]
        + p[n >> 40 & 1023]
        + p[n >> 30 & 1023]
        + p[n >> 20 & 1023]
        + p[n >> 10 & 1023]
        + p[n & 1023]
    )


def _bits80(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=10).digest(), "big")


@lru_cache(maxsize=256)
def ulid_time_chars(ms: int) -> str:
    """The first 10 characters of a ULID of that moment (ms since 1970). May raise `ValueError`.

    >>> ulid_time_chars(1_700_000_000_000)
    '01HF7YAT00'
    """
    if not 0 <= ms <= MAX_TIME_MS:
        raise ValueError(f"ms: {ms} is not a time a ULID can hold (0 to {MAX_TIME_MS})")
    return _chars16(ms)[6:]


def ulid_ms(ulid: str) -> int:
    """The moment in a ULID, in ms since 1970. Raises `ValueError` when it isn't one.

    >>> ulid_ms("01HF7YAT00" + "0" * 16)
    1700000000000
    """
    try:
        v = _VALUES
        return (
            v[ulid[0:2]] << 40
            | v[ulid[2:4]] << 30
            | v[ulid[4:6]] << 20
            | v[ulid[6:8]] << 10
            | v[ulid[8:10]]
        )
    except KeyError:
        raise ValueError(f"{ulid!r} is not a ULID") from None


def is_ulid(text: str) -> bool:
    """Whether `text` is a ULID in its canonical form: 26 characters, upper case."""
    return len(text) == 26 and text[0] <= "7" and _CHARS.issuperset(text)


@lru_cache(maxsize=64)
def _seed_chars(seed: str) -> str:
    return _chars16(_bits80(seed.encode()))[:12]


def event_entropy(seed: str, index: int) -> str:
    """The last 16 characters of the internal id of the `index`-th event of a send.

    12 characters of the seed's hash, 4 of the index: the events of a call sort in the order they
    were given. The same seed gives the same ids, so a retried send is accepted once.
    """
    return _seed_chars(seed) + _PAIRS[index >> 10 & 1023] + _PAIRS[index & 1023]


def function_cause(app_id: str, fn_id: str) -> str:
    """A function as a cause of its runs' ids. The length of the app's id keeps ("a\0b", "c") and ("a", "b\0c") apart."""
    return f"{len(app_id)}\0{app_id}\0{fn_id}"


def run_entropy(event_id: str, app_id: str, fn_id: str, shard: int) -> str:
    """The last 16 characters of a run's id: 14 of a hash of its causes, 2 of its shard (0-1023).

    SHA-1, since the server's scripts have it too (arrive.lua).
    """
    causes = f"{event_id}\0{function_cause(app_id, fn_id)}".encode()
    n = int.from_bytes(sha1(causes, usedforsecurity=False).digest()[:10], "big")
    return _chars16(n & ~1023 | _shard(shard))


def run_id(accept_ms: int, event_id: str, app_id: str, fn_id: str, shard: int) -> str:
    """The run that an event accepted at `accept_ms` starts: a ULID that tells its shard.

    >>> shard_of_run(run_id(1_700_000_000_000, "01HF7YAT00" + "0" * 16, "shop", "fulfil", 3))
    3
    """
    return ulid_time_chars(accept_ms) + run_entropy(event_id, app_id, fn_id, shard)


def _shard(shard: int) -> int:
    if 0 <= shard < MAX_SHARDS:
        return shard
    raise ValueError(f"shard: {shard} is not one; shards are 0 to {MAX_SHARDS - 1}")


def shard_of_run(run_id: str) -> int:
    """The shard in a run's id. Raises `ValueError` when it isn't one."""
    try:
        if len(run_id) == 26:
            return _VALUES[run_id[24:]]
    except KeyError:
        pass
    raise ValueError(f"{run_id!r} is not a run id: it is a ULID of 26 characters")


@lru_cache(maxsize=4096)
def function_shard(app_id: str, fn_id: str, shards: int) -> int:
    """Where a function lives: a hash of the pair, which no option of the function changes."""
    return 0 if shards == 1 else _bits80(f"{len(app_id)}\0{app_id}\0{fn_id}".encode()) % shards


def event_shard(key: str, shards: int) -> int:
    """Where an event with that user id, or a send with that seed, goes."""
    return 0 if shards == 1 else _bits80(key.encode()) % shards


@lru_cache(maxsize=8192)
def step_key(step_id: str, index: int) -> str:
    """The 16-character key of the `index`-th use of a step id in a run.

    The index goes first, ended by a colon: digits hold no colon, so no two pairs read alike.
    """
    return _chars16(_bits80(f"{index}:{step_id}".encode()))
