"""Where user-chosen names live: the shard and hash of event ids and of signals.

Client and worker must agree on both, or a duplicate would not meet its original.
"""

from binascii import b2a_base64
from hashlib import blake2b
from typing import NamedTuple

from stepwell.ids import event_shard


class Route(NamedTuple):
    """The hash that stands in a key, and the shard of that key."""

    hash: str
    shard: int


def name_hash(name: str) -> str:
    """96 bits of `name` as 16 characters: keys stay short, and no two names meet by chance."""
    digest = blake2b(name.encode(), digest_size=12).digest()
    return b2a_base64(digest, newline=False).decode()


def event_route(event_id: str, shards: int) -> Route:
    """Where an event with a user's id is de-duplicated, and goes."""
    return Route(name_hash(event_id), event_shard(event_id, shards))


def signal_route(signal: str, shards: int) -> Route:
    """Where a signal's reservation is."""
    return Route(name_hash(signal), event_shard(signal, shards))
