"""The results of one run as a table for people and JSON for machines."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .bench import Row

PACKAGES = ("stepwell", "redis", "hiredis", "uvloop", "dramatiq", "taskiq", "pydocket")


class Results:
    """Rows in the order they were measured; ratios are looked up within this run only."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def add(self, row: Row) -> None:
        """Keep a row. Raises ValueError if one of its key is there."""
        if row.key in self._rows:
            raise ValueError(f"two rows are named {row.key!r}; give each its own name")
        self._rows[row.key] = row

    def ratio(self, row: Row) -> float | None:
        """`row` divided by the row it is against, or None if that was not measured."""
        other = self._rows.get(row.against) if row.against else None
        return row.value / other.value if other and other.value else None

    def met(self, row: Row) -> bool | None:
        """Whether the row meets its goal; None without a goal or without its other row."""
        return row.goal.met(row.value, self.ratio(row)) if row.goal else None

    def table(self) -> Table:
        """All rows with spread, ratio and goal."""
        table = Table(title="Stepwell benchmarks", title_justify="left")
        for name in ("section", "what"):
            table.add_column(name)
        for name in ("median", "unit", "min … max", "ratio", "goal", ""):
            table.add_column(name, justify="left" if name == "unit" else "right")
        table.add_column("note")
        last = ""
        for row in self._rows.values():
            if last and row.section != last:
                table.add_section()
            table.add_row(row.section if row.section != last else "", *self._cells(row))
            last = row.section
        return table

    def show(self, console: Console) -> None:
        """Print the table."""
        console.print(self.table())

    def write(self, path: Path, settings: dict[str, Any]) -> None:
        """Write settings, machine and rows as JSON, making the folder if need be."""
        rows = [
            {**asdict(row), "ratio": self.ratio(row), "met": self.met(row)}
            for row in self._rows.values()
        ]
        report = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "settings": settings,
            "rows": rows,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")

    def missed(self) -> list[Row]:
        """Rows whose goal was measured and not met."""
        return [row for row in self._rows.values() if self.met(row) is False]

    def _cells(self, row: Row) -> Sequence[str]:
        ratio, met = self.ratio(row), self.met(row)
        low, high = min(row.samples, default=0.0), max(row.samples, default=0.0)
        spread = f"{number(low)} … {number(high)}" if len(row.samples) > 1 else ""
        of = f"{ratio:.2f}x {row.against}" if ratio is not None else ""
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[met]
        goal = str(row.goal) if row.goal else ""
        return (row.name, number(row.value), row.unit, spread, of, goal, verdict, row.note)


def number(value: float) -> str:
    """Three digits that matter: 17,041 and 1.07."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
