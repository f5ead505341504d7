"""A script as a program that can be called again and again: what it defines, and what a call does.

EVALSHA makes every function that a script defines anew at each call: some hundred of them take longer than what most calls do, and are
garbage afterwards, which in a server full of data comes to lie in cold memory. A library of the server's functions (Redis 7 and later)
makes them once, when it is loaded. So functions and constants stand apart here from what sets variables: that is done at the start
of each call, in the order of the script, and nothing of one call is seen by the next.
https://redis.io/docs/latest/develop/programmability/functions-intro/
"""

import re
from collections.abc import Sequence

from stepwell_engine.store.sources import Statement, words

_SCALAR = re.compile(r"'[^'\\]*'|\d+")
_COMMENT = re.compile(r" *--[^\n']*$")


def evaluated(program: str) -> str:
    """What SCRIPT LOAD takes, for a `program`."""
    return f"local ROOT = KEYS[1]\n{program}\n_begin()\nreturn _body()"


def library(name: str, program: str) -> str:
    """What FUNCTION LOAD takes, for a `program`: a library with one function, both called `name`."""
    return f"""#!lua name={name}
local KEYS, ARGV, ROOT
{program}
local function _call(keys, args)
  KEYS, ARGV, ROOT = keys, args, keys[1]
  _begin()
  local reply = _body()
  -- They may be large, and the next call may be long in coming.
  KEYS, ARGV = nil, nil
  return reply
end
redis.register_function('{name}', _call)
"""


def program(definitions: Sequence[Statement], script: Sequence[Statement]) -> str:
    """Lua in which `_begin` sets the variables of the definitions, and `_body` does what the script does after them.

    Lua lets a function have 200 variables, and name 60 of others.
    """
    everything = [*definitions, *script]
    functions = {name for s in everything if s.is_function for name in s.names}
    made: list[str] = []
    begin: list[str] = []
    for each in definitions:
        if each.is_function or _constant(each, everything):
            made.append(each.text)
        elif each.value is None:
            begin.append(each.text)
        else:
            made.append(f"local {', '.join(each.names)}")
            begin.append(_assignment(each, functions))
    own, body = _divide(script)
    return "\n".join(
        [
            *made,
            *own,
            "local function _begin()",
            *filter(None, begin),
            "end",
            "local function _body()",
            *body,
            "end",
        ]
    )


def _divide(script: Sequence[Statement]) -> tuple[list[str], list[str]]:
    """A script's own functions, with the variables that they share with its body, and the body."""
    functions = [s for s in script if s.is_function]
    used = words(s.text for s in functions)
    # `function ops.d()` is put into its table where that is made.
    tables = {s.names[0].partition(".")[0] for s in functions if "." in s.names[0]}
    own: list[str] = []
    body: list[str] = []
    for each in script:
        if each.is_function or tables.intersection(each.names):
            own.append(each.text)
        elif each.value is not None and used.intersection(each.names):
            own.append(f"local {', '.join(each.names)}")
            body.append(_assignment(each, set()))
        else:
            body.append(each.text)
    return own, body


def _assignment(each: Statement, functions: set[str]) -> str:
    """A `local` as an assignment; '' where it only declares functions that are defined later."""
    if each.value:
        return f"{', '.join(each.names)} = {each.value}"
    unset = [name for name in each.names if name not in functions]
    return f"{', '.join(unset)} = nil" if unset else ""


def _constant(each: Statement, everything: Sequence[Statement]) -> bool:
    """Whether it names a number or text, and nothing assigns to that name."""
    if len(each.names) != 1 or not _SCALAR.fullmatch(_COMMENT.sub("", each.value or "")):
        return False
    assigned = re.compile(rf"\b{each.names[0]}\b(?:\s*,\s*\w+)*\s*=(?!=)")
    return not any(assigned.search(s.text) for s in everything if s is not each)
