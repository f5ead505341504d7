"""Expressions (CEL with null-tolerant rules): compile, evaluate, and index what is an equality.

Importing this loads no parser; the first `compile` does.
"""

from stepwell_engine.expressions.index import Equality, canonical, index_key, lookup, short_hash
from stepwell_engine.expressions.program import Program, compile, match_to_expression  # noqa: A004
from stepwell_engine.expressions.values import key_text

__all__ = [
    "Equality",
    "Program",
    "canonical",
    "compile",
    "index_key",
    "key_text",
    "lookup",
    "match_to_expression",
    "short_hash",
]
