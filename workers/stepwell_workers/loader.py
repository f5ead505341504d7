"""Finds the user's clients: `module:attr` or `path/to/app.py:attr` to Client objects.

Errors of the user's own code pass through; a wrong target is a ConfigError that says what to write.
"""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from stepwell.client import Client
from stepwell.errors import ConfigError

_FORMS = "write module:attribute (shop.jobs:client) or a file (shop/jobs.py:client)"


def load(target: str) -> list[Client]:
    """Import `target` and return its clients, each once, in order.

    `target` is `module:attribute` or `path/to/app.py:attribute`; the attribute (dots allowed) is a
    Client, a list or tuple of them, or a plain function without arguments that returns either. The
    working directory is put on `sys.path`; for a file, the folder above its outermost package.
    Raises ConfigError if there is no such module, file or attribute, or it isn't a Client.

        load("shop.jobs:client")[0].app_id
    """
    where, attribute = _split(target)
    _on_path(Path.cwd())
    module = _from_file(Path(where), target) if _is_file(where) else _from_name(where, target)
    return _clients(_find(module, attribute, target), target)


def source_folder(target: str) -> Path:
    """The folder whose sources belong to `target`: what `--reload` watches. Imports nothing.

    source_folder("shop/jobs.py:client")  # PosixPath('.../the folder above shop')
    """
    where, _ = _split(target)
    return _root_of(Path(where).resolve())[0] if _is_file(where) else Path.cwd()


def _split(target: str) -> tuple[str, str]:
    # From the right: a Windows path has a colon of its own.
    where, colon, attribute = target.rpartition(":")
    if not colon and target:
        raise ConfigError(
            f"the target {target!r} names no attribute; write {target}:client, "
            "if the Client is in a variable named client"
        )
    if not where or not attribute or attribute.endswith((".py", ".")) or "\\" in attribute:
        raise ConfigError(f"the target {target!r} isn't one; {_FORMS}")
    return where, attribute


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where or os.sep in where


def _on_path(folder: Path) -> None:
    text = str(folder)
    if text not in sys.path:
        sys.path.insert(0, text)
        importlib.invalidate_caches()


def _root_of(file: Path) -> tuple[Path, str]:
    """Where to import `file` from, and as what: packages have an `__init__.py`."""
    parts = [] if file.stem == "__init__" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _from_file(path: Path, target: str) -> ModuleType:
    file = path.resolve()
    if not file.is_file():
        what = "is a folder; name the .py file in it" if file.is_dir() else "doesn't exist"
        raise ConfigError(f"the target {target!r}: {path} {what} (looked in {Path.cwd()})")
    folder, name = _root_of(file)
    if file.suffix != ".py" or "." in file.stem:
        raise ConfigError(
            f"the target {target!r}: {file.name} can't be imported; "
            "name it like a module, as in jobs.py"
        )
    _on_path(folder)
    module = _from_name(name, target)
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != file:
        raise ConfigError(
            f"the target {target!r}: {path} would be the module {name!r}, but that name belongs to "
            f"{found or 'a built-in module'}; rename the file"
        )
    return module


def _from_name(name: str, target: str) -> ModuleType:
    if not name.strip(".") or name.startswith("."):
        raise ConfigError(f"the target {target!r} isn't one; {_FORMS}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            raise ConfigError(_no_module(name, missing, target)) from error
        raise ConfigError(
            f"the target {target!r}: {_importer(error)} imports {missing!r}, which is neither "
            f"installed here ({sys.executable}) nor in {Path.cwd()}"
        ) from error


def _no_module(name: str, missing: str, target: str) -> str:
    text = f"the target {target!r}: there is no module {missing!r} in {Path.cwd()} or installed"
    if missing != name:
        text += f" (for {name!r})"
    file = Path(*name.split(".")).with_suffix(".py")
    near = [
        f"{p.relative_to(Path.cwd())}:{target.rpartition(':')[2]}"
        for p in Path.cwd().glob(f"*/{file}")
    ]
    if near:
        return f"{text}; did you mean {near[0]}?"
    return f"{text}; start it in the folder that holds {name.partition('.')[0]!r}, or name the file"


def _importer(error: BaseException) -> str:
    """File and line of the user's import that failed, innermost."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}," if frames else "it"


def _find(module: ModuleType, attribute: str, target: str) -> object:
    value: object = module
    seen = module.__name__
    for name in attribute.split("."):
        if not hasattr(value, name):
            raise ConfigError(
                f"the target {target!r}: {seen} has no attribute {name!r}; {_instead(value, name)}"
            )
        value = getattr(value, name)
        seen += f".{name}"
    return value


def _instead(value: object, name: str) -> str:
    names = [n for n in dir(value) if not n.startswith("_")]
    clients = [n for n in names if isinstance(inspect.getattr_static(value, n), Client)]
    if near := get_close_matches(name, [*clients, *names], n=1):
        return f"did you mean {near[0]!r}?"
    if clients:
        return f"its clients are {', '.join(clients)}"
    return 'it has no Client; write client = stepwell.Client(app_id="...") in it'


def _clients(value: object, target: str) -> list[Client]:
    origin = "it "
    if not isinstance(value, Client) and callable(value):
        value = _call(cast("Callable[[], object]", value), target)
        origin = "what it returned "
    items: list[Any] = (
        list(cast("Iterable[Any]", value)) if isinstance(value, list | tuple) else [value]
    )
    for item in items:
        if inspect.iscoroutine(item):
            item.close()  # never awaited, on purpose
            raise ConfigError(
                f"the target {target!r} is an async function; write a plain one that returns "
                "the Client"
            )
        if not isinstance(item, Client):
            raise ConfigError(
                f"the target {target!r}: {origin}is a {_kind(item)}, not a stepwell.Client or a "
                "list of them"
            )
    if not items:
        raise ConfigError(f"the target {target!r} is an empty list; put a stepwell.Client in it")
    return list(dict.fromkeys(items))


def _call(factory: Callable[[], object], target: str) -> object:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ConfigError(
            f"the target {target!r} is a function that needs arguments ({error}); "
            "give them defaults"
        ) from error
    except ValueError:
        pass  # a callable that shows no signature
    return factory()


def _kind(value: object) -> str:
    kind = type(value)
    return (
        kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    )
