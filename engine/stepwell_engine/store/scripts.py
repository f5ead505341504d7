"""The Lua transitions: found in `lua/`, expanded, and named as attributes of `Scripts`.

A script's header is its contract: `-- KEYS …`, `-- ARGV …`, `--- include …`. `Script` parses it, a test holds it against the
typed stubs in `transitions.py`.
"""

import hashlib
import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from stepwell_engine.store.keys import BY_NAME, lua_builder

_INCLUDE = re.compile(r"^--- include (.+)$", re.MULTILINE)
_KEY_USE = re.compile(r"\bk_(\w+)\(")


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
    body = _expand(text, folder)
    names = dict.fromkeys(_KEY_USE.findall(body))
    builders = [lua_builder(used) for used in names if used in BY_NAME]
    source = "\n".join(["local ROOT = KEYS[1]", *builders, body])
    return make_script(name, source, _header(text, "KEYS"), _header(text, "ARGV"))


def _expand(text: str, folder: Traversable) -> str:
    seen: dict[str, str] = {}

    def pull(source: str) -> None:
        for line in _INCLUDE.findall(source):
            for name in (part.strip() for part in line.split(",")):
                if name not in seen:
                    included = (folder / "lib" / f"{name}.lua").read_text("utf-8")
                    pull(included)
                    seen[name] = included

    pull(text)
    return "\n".join([*seen.values(), text])


def _header(text: str, word: str) -> tuple[str, ...]:
    found = re.search(rf"^-- {word} +(.+)$", text, re.MULTILINE)
    return tuple(found.group(1).split()) if found else ()
