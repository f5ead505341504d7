"""The Lua transitions: found in `lua/`, expanded, and named as attributes of `Scripts`.

A script's header is its contract: `-- KEYS …`, `-- ARGV …`, `--- include …`. `Script` parses it, a test holds it against the
typed stubs in `transitions.py`.
"""

import hashlib
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Final

from stepwell_engine.store.keys import BY_NAME, lua_builder
from stepwell_engine.store.programs import evaluated, library, program
from stepwell_engine.store.sources import Statement, needed, read, statements

PREFIX: Final = "stepwell"
"""Of the names of functions: `stepwell_<script>_<version>`."""

_KEY_USE = re.compile(rf"\bk_({'|'.join(BY_NAME)})\(")


@dataclass(frozen=True)
class Script:
    """One transition, in the two forms that servers take: a script for EVALSHA, and a library with a function for FCALL."""

    name: str
    text: str = field(repr=False)
    definitions: tuple[Statement, ...] = field(default=(), repr=False)
    keys: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()

    @cached_property
    def source(self) -> str:
        """What SCRIPT LOAD takes."""
        return evaluated(self._program)

    @cached_property
    def sha(self) -> str:
        """What EVALSHA takes."""
        return _sha(self.source)

    @cached_property
    def function(self) -> str:
        """What FCALL takes. It names the version: workers and coordinators of several may use one server."""
        return f"{PREFIX}_{self.name}_{_sha(library('', self._program))[:12]}"

    @cached_property
    def library(self) -> str:
        """What FUNCTION LOAD takes."""
        return library(self.function, self._program)

    @cached_property
    def _program(self) -> str:
        text = program(self.definitions, statements(self.text))
        names = dict.fromkeys(_KEY_USE.findall(text))
        # In one table: Lua lets a script have 200 variables.
        builders = ["local K = {}", *map(lua_builder, names)] if names else []
        return "\n".join([*builders, _KEY_USE.sub(r"K.\1(", text)])


@cache
def load(name: str) -> Script:
    """Read `lua/<name>.lua`, with what it uses of its libraries."""
    text = read(name)
    header = (_header(text, word) for word in ("KEYS", "ARGV"))
    return Script(name, text, tuple(needed(text)), *header)


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _header(text: str, word: str) -> tuple[str, ...]:
    found = re.search(rf"^-- {word} +(.+)$", text, re.MULTILINE)
    return tuple(found.group(1).split()) if found else ()
