"""The Lua transitions: found in `lua/`, expanded, and named as attributes of `Scripts`.

A script's header is its contract: `-- KEYS …`, `-- ARGV …`, `--- include …`. `Script` parses it, a test holds it against the
typed stubs in `transitions.py`.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

from stepwell_engine.store.keys import BY_NAME, lua_builder

_INCLUDE = re.compile(r"^--- include (.+)$", re.MULTILINE)
_KEY_USE = re.compile(r"\bk_(\w+)\(")
_NAME = re.compile(r"[A-Za-z_]\w*")
_DEFINITION = re.compile(r"(?:local )?function (\w+)|local (\w+(?:, *\w+)*)")


@dataclass(frozen=True, slots=True)
class Script:
    """One transition: its name, expanded source and SHA-1 (what EVALSHA takes)."""

    name: str
    source: str
    keys: tuple[str, ...]
    argv: tuple[str, ...]
    sha: str = field(default="")

    def strict(self) -> "Script":
        """The same script with a shebang, which makes servers ≥ 7 refuse foreign slots. For tests."""
        return make_script(self.name, "#!lua\n" + self.source, self.keys, self.argv)


def make_script(name: str, source: str, keys: tuple[str, ...], argv: tuple[str, ...]) -> Script:
    """A `Script` with its SHA-1 worked out."""
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, keys, argv, sha)


@cache
def load(name: str) -> Script:
    """Read `lua/<name>.lua`, put what it uses of its libraries and the key builders before it."""
    folder = resources.files("stepwell_engine.store") / "lua"
    text = (folder / f"{name}.lua").read_text("utf-8")
    source = "local ROOT = KEYS[1]\n" + assemble(_libraries(text, folder), text)
    return make_script(name, source, _header(text, "KEYS"), _header(text, "ARGV"))


def _libraries(text: str, folder: Traversable) -> dict[str, str]:
    """The libraries that a script includes, by name, in the order in which they must stand."""
    seen: dict[str, str] = {}

    def pull(source: str) -> None:
        for line in _INCLUDE.findall(source):
            for name in (part.strip() for part in line.split(",")):
                if name not in seen:
                    included = _included(name, folder)
                    pull(included)
                    seen[name] = included

    pull(text)
    return seen


class Definition(NamedTuple):
    """A piece of a library: what it defines (nothing: it is always there), and whether it may be left until a function is called.

    `late`: '' no · 'f' it is such a function · 'v' what such functions share, unless others use it too.
    """

    text: str
    names: frozenset[str]
    late: str


def assemble(libraries: Mapping[str, str], text: str) -> str:
    """`text` after the definitions of `libraries` that it uses, directly or through others, and the key builders.

    A server makes every function of a script anew each time it runs. So what is not used is not there, and the functions of flow control
    (`limits/…`), which most calls don't need, stand in one function that runs when the first of them is called. With them stands what only
    they share: Lua lets a function name 60 variables from outside.
    """
    kept = _needed([d for name, library in libraries.items() for d in _cut(name, library)], text)
    used = set(_NAME.findall("\n".join([*(d.text for d in kept if not d.late), text])))
    late = [d for d in kept if d.late == "f" or (d.late == "v" and not d.names & used)]
    early = [d.text for d in kept if d not in late]
    if not late:
        return "\n".join([*_builders([*early, text]), *early, text])
    declared = {name for d in kept if d not in late for name in d.names}
    doors = sorted({name for d in late for name in d.names} & used)
    listed = ", ".join(doors)
    builders = _builders([*early, text])
    inner = [b for b in _builders([d.text for d in late]) if b not in builders]
    ways = [f"{d} = function(...) {listed} = open_limits() return {d}(...) end" for d in doors]
    return "\n".join(
        [
            *builders,
            f"local {', '.join(d for d in doors if d not in declared) or '_'}",
            *early,
            "local function open_limits()",
            *inner,
            *(d.text for d in late),
            f"return {listed}",
            "end",
            *ways,
            text,
        ]
    )


def _builders(parts: Sequence[str]) -> list[str]:
    names = dict.fromkeys(_KEY_USE.findall("\n".join(parts)))
    return [lua_builder(used) for used in names if used in BY_NAME]


def _needed(definitions: Sequence[Definition], text: str) -> list[Definition]:
    kept = [not d.names for d in definitions]
    wanted = set(_NAME.findall(text))
    for d, keep in zip(definitions, kept, strict=True):
        if keep:
            wanted.update(_NAME.findall(d.text))
    while found := [i for i, d in enumerate(definitions) if not kept[i] and d.names & wanted]:
        for i in found:
            kept[i] = True
            wanted.update(_NAME.findall(definitions[i].text))
    return [d for d, keep in zip(definitions, kept, strict=True) if keep]


def _cut(name: str, library: str) -> list[Definition]:
    """A library in pieces: each begins with `local`, `function` or `do` at the start of a line. Comments go."""
    parts: list[list[str]] = []
    for line in library.splitlines():
        if line.startswith("--"):
            continue
        if not parts or line.startswith(("local ", "function ", "do")):
            parts.append([])
        parts[-1].append(line)
    return [_definition("\n".join(p), limits=name.startswith("limits/")) for p in parts if any(p)]


def _definition(text: str, *, limits: bool) -> Definition:
    found = _DEFINITION.match(text)
    if found is None:
        return Definition(text, frozenset(), "")
    late = "f" if found[1] else "v"
    return Definition(text, frozenset(_NAME.findall(found[1] or found[2])), late if limits else "")


def _included(name: str, folder: Traversable) -> str:
    """A part of `lua/lib`; an option's part (`limits/<option>`) lies beside its Python."""
    if name.startswith("limits/"):
        return (resources.files("stepwell_engine") / f"{name}.lua").read_text("utf-8")
    return (folder / "lib" / f"{name}.lua").read_text("utf-8")


def _header(text: str, word: str) -> tuple[str, ...]:
    found = re.search(rf"^-- {word} +(.+)$", text, re.MULTILINE)
    return tuple(found.group(1).split()) if found else ()
