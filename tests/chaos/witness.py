"""What really ran, written down outside of Redis: one line a call in a file that all processes append to."""

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell_workers.parking import OWNER

_fd = -1


def open_at(path: str) -> None:
    """Write to `path` from now on; each line is one `write`, so lines of several processes don't mix."""
    global _fd
    _fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def token() -> str:
    """The lease under which the caller runs, "-" where it can't be seen."""
    journal: Any = getattr(OWNER.get(), "journal", None)
    return str(journal.token) if journal is not None else "-"


def _write(kind: str, run: str, step: str, attempt: int, nonce: str) -> None:
    line = f"{kind} {run} {step} {attempt} {token()} {os.getpid()} {nonce} {time.time_ns()}\n"
    if _fd >= 0:
        os.write(_fd, line.encode())


def entered(run: str) -> None:
    """The function was called from its top."""
    _write("enter", run, "-", 0, "-")


def ran(run: str, step: str, attempt: int) -> str:
    """A step's body began; the nonce tells this execution from any other."""
    nonce = secrets.token_hex(6)
    _write("step", run, step, attempt, nonce)
    return nonce


def done(run: str, step: str, attempt: int, nonce: str) -> None:
    """A step's body is through; what it returns is not recorded yet."""
    _write("end", run, step, attempt, nonce)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the witness file; `at` is its place in the file."""

    at: int
    kind: str
    run: str
    step: str
    attempt: int
    token: str
    pid: int
    nonce: str
    ns: int


def read(path: Path) -> list[Line]:
    """All lines, in the order in which they were written."""
    if not path.exists():
        return []
    lines: list[Line] = []
    for at, text in enumerate(path.read_text().splitlines()):
        kind, run, step, attempt, held, pid, nonce, ns = text.split(" ")
        lines.append(Line(at, kind, run, step, int(attempt), held, int(pid), nonce, int(ns)))
    return lines
