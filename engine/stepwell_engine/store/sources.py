"""Lua sources in statements, and what of the libraries a script needs.

The sources keep to one form, which a test holds them to: a statement begins at the start of a line, what it holds is indented, and a
library has definitions only: functions, `local` variables, and `do` blocks that set them.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

_INCLUDE = re.compile(r"^--- include (.+)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_]\w*")
_FUNCTION = re.compile(r"(?:local )?function ([\w.]+)")
_LOCAL = re.compile(r"local (\w+(?:, *\w+)*) *(?:=\s*(.*)|--.*)?", re.DOTALL)
_GOES_ON = re.compile(r"[\s})]|(?:end|else|elseif|until)\b")


class Statement(NamedTuple):
    """A statement of a source.

    `names`: what it defines, nothing if it only does something. `value`: what a `local` sets its names to, '' = nothing, None = it isn't
    one of those.
    """

    text: str
    names: tuple[str, ...]
    value: str | None

    @property
    def is_function(self) -> bool:
        return bool(self.names) and self.value is None


@cache
def statements(source: str) -> tuple[Statement, ...]:
    """A source's statements; comments between them go."""
    parts: list[list[str]] = []
    for line in source.splitlines():
        if not line or line.startswith(("--", "#!")):
            continue
        if parts and _GOES_ON.match(line):
            parts[-1].append(line)
        else:
            parts.append([line])
    return tuple(_statement("\n".join(lines)) for lines in parts)


def _statement(text: str) -> Statement:
    if found := _FUNCTION.match(text):
        return Statement(text, (found[1],), None)
    if found := _LOCAL.fullmatch(text):
        return Statement(text, tuple(_NAME.findall(found[1])), found[2] or "")
    return Statement(text, (), None)


def words(texts: Iterable[str]) -> set[str]:
    """All that may be a name in them."""
    return set(_NAME.findall("\n".join(texts)))


def needed(text: str) -> list[Statement]:
    """What a script uses of the libraries that it includes, directly or through others, in order."""
    found = [s for library in _libraries(text) for s in statements(library)]
    kept = [not s.names for s in found]
    wanted = words([text, *(s.text for s in found if not s.names)])
    while more := [i for i, s in enumerate(found) if not kept[i] and wanted.intersection(s.names)]:
        for i in more:
            kept[i] = True
        wanted |= words(found[i].text for i in more)
    return [s for s, keep in zip(found, kept, strict=True) if keep]


def read(name: str) -> str:
    """The source `lua/<name>.lua`."""
    return (_folder() / f"{name}.lua").read_text("utf-8")


def _libraries(text: str) -> Sequence[str]:
    """The libraries that a script includes, in the order in which they must stand."""
    seen: dict[str, str] = {}

    def pull(source: str) -> None:
        for line in _INCLUDE.findall(source):
            for name in (part.strip() for part in line.split(",")):
                if name not in seen:
                    included = _included(name)
                    pull(included)
                    seen[name] = included

    pull(text)
    return list(seen.values())


@cache
def _included(name: str) -> str:
    """A part of `lua/lib`; an option's part (`limits/<option>`) lies beside its Python."""
    if name.startswith("limits/"):
        return (resources.files("stepwell_engine") / f"{name}.lua").read_text("utf-8")
    return (_folder() / "lib" / f"{name}.lua").read_text("utf-8")


def _folder() -> Traversable:
    return resources.files("stepwell_engine.store") / "lua"
