"""How values are stored: msgpack with extension types, and the conversion of typed outputs."""

from stepwell.serde.values import pack, to_json, unpack

__all__ = ["pack", "to_json", "unpack"]
