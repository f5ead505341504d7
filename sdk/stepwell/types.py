"""Aliases shared by the package's signatures."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

JSON: TypeAlias = bool | int | float | str | Mapping[str, object] | Sequence[object] | None
"""What JSON can hold; not recursive, so that type checkers stay quick and readable."""

Value: TypeAlias = JSON | datetime | date | bytes | Decimal | UUID | set[object]
"""What a step may return without an `output_type`: JSON and the types kept by extension."""
