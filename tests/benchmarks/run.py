"""`make bench`: runs the sections of `SECTIONS`, prints a table and writes `.bench/results.json`.

python -m tests.benchmarks.run [--only bare,peers] [--repeat 3] [--scale 1.0] [--out FILE]
"""

import argparse
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from .bench import Bench, Section
from .sections import gates, idle, memory, parallel, races, sleeps, throughput, waits
from .table import Results, number

SECTIONS: list[Section] = [
    Section(
        "throughput", throughput.section, "runs a second and start latency, beside the bare path"
    ),
    Section("parallel", parallel.section, "one run of a hundred parallel steps"),
    Section("sleeps", sleeps.section, "lateness of a thousand sleeps"),
    Section("memory", memory.section, "a million sleeping runs: memory, and leasing beside them"),
    Section("waits", waits.section, "an event among a million open waits"),
    Section("idle", idle.section, "commands a second of idle processes"),
    Section("gates", gates.section, "limits: hot keys, many keys, blocked keys, every option on"),
    Section("peers", races.section, "a no-op job beside dramatiq, taskiq and docket"),
]
"""In this order, so that what others are `against` is measured first. To add one: a module in
`sections/` with `def section(bench: Bench) -> Iterator[Row]`, and a line here."""


@contextmanager
def server() -> Generator[str]:
    """The URL of an empty server without persistence."""
    # Here, because every process of a measurement imports this module as its main one.
    from stepwell_engine.embedded import EmbeddedServer

    with EmbeddedServer() as embedded:
        yield embedded.url


def chosen(only: str | None) -> list[Section]:
    """The sections named in a comma-separated list. Raises SystemExit for an unknown name."""
    if only is None:
        return SECTIONS
    names = [name.strip() for name in only.split(",")]
    known = {section.name: section for section in SECTIONS}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"--only {','.join(unknown)}: not a section; choose of {', '.join(known)}")
    return [section for section in SECTIONS if section.name in names]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run")
    names = ", ".join(f"{section.name} ({section.about})" for section in SECTIONS)
    parser.add_argument("--only", metavar="NAMES", help=f"comma-separated, of: {names}")
    parser.add_argument("--repeat", type=int, default=3, help="measurements a row (median)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every size")
    parser.add_argument("--out", type=Path, default=Path(".bench/results.json"))
    parser.add_argument("--strict", action="store_true", help="exit 1 if a goal is missed")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write; 1 if `--strict` and a goal is missed."""
    options = parse()
    console = Console()
    bench = Bench(server, repeat=options.repeat, scale=options.scale)
    results = Results()
    sections = chosen(options.only)
    for section in sections:
        for row in section.run(bench):
            results.add(row)
            console.print(f"{row.key}: {number(row.value)} {row.unit}", highlight=False)
    results.show(console)
    settings = {
        "sections": [section.name for section in sections],
        "repeat": options.repeat,
        "scale": options.scale,
    }
    results.write(options.out, settings)
    console.print(f"written to {options.out}")
    return 1 if options.strict and results.missed() else 0


if __name__ == "__main__":
    raise SystemExit(main())
