"""The Lua transitions: found in `lua/`, expanded, and named as attributes of `Scripts`.

A script's header is its contract: `-- KEYS …`, `-- ARGV …`, `--- include …`. `Script` parses it, a test holds it against the
typed stubs in `transitions.py`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

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
    """Read `lua/<name>.lua`, put its includes and the key builders it uses before it."""
    folder = resources.files("stepwell_engine.store") / "lua"
    text = (folder / f"{name}.lua").read_text("utf-8")
    body = "\n".join([*needed(_libraries(text, folder), text), text])
    names = dict.fromkeys(_KEY_USE.findall(body))
    builders = [lua_builder(used) for used in names if used in BY_NAME]
    source = "\n".join(["local ROOT = KEYS[1]", *builders, body])
    return make_script(name, source, _header(text, "KEYS"), _header(text, "ARGV"))


def _libraries(text: str, folder: Traversable) -> list[str]:
    """The libraries that a script includes, in the order in which they must stand."""
    seen: dict[str, str] = {}

    def pull(source: str) -> None:
        for line in _INCLUDE.findall(source):
            for name in (part.strip() for part in line.split(",")):
                if name not in seen:
                    included = (folder / "lib" / f"{name}.lua").read_text("utf-8")
                    pull(included)
                    seen[name] = included

    pull(text)
    return list(seen.values())


def needed(libraries: Sequence[str], text: str) -> list[str]:
    """The definitions of `libraries` that `text` uses, directly or through others.

    A server makes every function of a script anew each time it runs: what is not used must not be there. A definition begins at the
    start of a line with `local` or `function` and has the lines up to the next such beginning; what defines nothing is kept.
    """
    parts = [part for library in libraries for part in _definitions(library)]
    names = [frozenset(_defined(part)) for part in parts]
    kept = [not defined for defined in names]
    wanted = set(_NAME.findall(text))
    for part, keep in zip(parts, kept, strict=True):
        if keep:
            wanted.update(_NAME.findall(part))
    while True:
        found = [i for i, keep in enumerate(kept) if not keep and names[i] & wanted]
        if not found:
            return [part for part, keep in zip(parts, kept, strict=True) if keep]
        for i in found:
            kept[i] = True
            wanted.update(_NAME.findall(parts[i]))


def _definitions(library: str) -> list[str]:
    """A library, cut before each definition and before each block that defines nothing; comments go."""
    parts: list[list[str]] = []
    for line in library.splitlines():
        if line.startswith("--"):
            continue
        if not parts or line.startswith(("local ", "function ", "do")):
            parts.append([])
        parts[-1].append(line)
    return ["\n".join(part) for part in parts if any(part)]


def _defined(part: str) -> list[str]:
    found = _DEFINITION.match(part)
    return _NAME.findall(found[1] or found[2]) if found else []


def _header(text: str, word: str) -> tuple[str, ...]:
    found = re.search(rf"^-- {word} +(.+)$", text, re.MULTILINE)
    return tuple(found.group(1).split()) if found else ()
