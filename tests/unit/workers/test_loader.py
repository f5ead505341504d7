"""`load`: every way a target can be right or wrong, with the message a user sees."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepwell.client import Client
from stepwell.errors import ConfigError
from stepwell_workers.loader import load, source_folder

APP = "from stepwell.client import Client\nclient = Client(app_id='shop')\n"
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def app_ids(clients: list[Client]) -> list[str]:
    return [client.app_id for client in clients]


def refused(target: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(target)
    return str(caught.value)


def test_module(write: Write) -> None:
    write("wl_mod.py", APP)
    assert app_ids(load("wl_mod:client")) == ["shop"]


def test_file_without_package(write: Write) -> None:
    write("deep/wl_file.py", "import wl_near\n" + APP)
    write("deep/wl_near.py", "")
    assert app_ids(load("deep/wl_file.py:client")) == ["shop"]
    assert source_folder("deep/wl_file.py:client") == Path.cwd() / "deep"


def test_file_in_a_package_imports_relatively(write: Write) -> None:
    write("src/wl_pkg/__init__.py", "")
    write("src/wl_pkg/jobs/__init__.py", "")
    write("src/wl_pkg/base.py", APP)
    write("src/wl_pkg/jobs/main.py", "from ..base import client\n")
    assert app_ids(load("src/wl_pkg/jobs/main.py:client")) == ["shop"]
    assert "wl_pkg.jobs.main" in sys.modules
    assert source_folder("src/wl_pkg/jobs/main.py:client") == Path.cwd() / "src"


def test_absolute_file_and_dotted_attribute(write: Write) -> None:
    path = write("wl_holder.py", APP + "class Holder:\n    inner = client\n")
    assert app_ids(load(f"{path}:Holder.inner")) == ["shop"]


def test_list_tuple_and_factory(write: Write) -> None:
    write(
        "wl_many.py",
        APP + "other = Client(app_id='other')\nboth = [client, other, client]\n"
        "pair = (other,)\ndef make(): return both\ndef one(n=1): return client\n",
    )
    assert app_ids(load("wl_many:both")) == ["shop", "other"]
    assert app_ids(load("wl_many:pair")) == ["other"]
    assert app_ids(load("wl_many:make")) == ["shop", "other"]
    assert app_ids(load("wl_many:one")) == ["shop"]


@pytest.mark.parametrize("target", ["", ":", "wl_a:", ":client", "wl_a:b.", ".:client"])
def test_not_a_target(write: Write, target: str) -> None:
    assert "isn't one; write module:attribute" in refused(target)


def test_no_attribute_named(write: Write) -> None:
    assert "'wl_app.py' names no attribute; write wl_app.py:client" in refused("wl_app.py")


def test_no_such_module(write: Write) -> None:
    message = refused("wl_missing.jobs:client")
    assert "there is no module 'wl_missing'" in message
    assert "(for 'wl_missing.jobs')" in message
    assert "start it in the folder that holds 'wl_missing'" in message


def test_no_such_module_but_a_file_below(write: Write) -> None:
    write("src/wl_below.py", APP)
    assert "did you mean src/wl_below.py:client?" in refused("wl_below:client")


def test_module_that_imports_something_missing(write: Write) -> None:
    path = write("wl_broken.py", "\nimport wl_not_installed\n")
    message = refused("wl_broken:client")
    assert f"{path}, line 2, imports 'wl_not_installed'" in message
    assert "there is no module" not in message


def test_error_of_the_users_module_passes_through(write: Write) -> None:
    write("wl_raises.py", "raise KeyError('mine')\n")
    with pytest.raises(KeyError, match="mine"):
        load("wl_raises:client")


def test_file_that_is_not_there(write: Write) -> None:
    assert "wl_none.py doesn't exist (looked in " in refused("wl_none.py:client")
    write("folder/x.py", "")
    assert "is a folder; name the .py file in it" in refused("./folder:client")


def test_file_whose_name_is_taken(write: Write) -> None:
    write("json.py", APP)
    message = refused("json.py:client")
    assert "would be the module 'json', but that name belongs to" in message
    assert "rename the file" in message


def test_file_that_is_no_module(write: Write) -> None:
    write("wl.v2.py", APP)
    assert "wl.v2.py can't be imported; name it like a module" in refused("wl.v2.py:client")


def test_attribute_missing(write: Write) -> None:
    write("wl_attr.py", APP + "jobs = Client(app_id='jobs')\n")
    assert "wl_attr has no attribute 'clint'; did you mean 'client'?" in refused("wl_attr:clint")
    assert "its clients are client, jobs" in refused("wl_attr:xyz")
    write("wl_empty.py", "")
    assert "it has no Client; write client =" in refused("wl_empty:client")


def test_wrong_types(write: Write) -> None:
    write(
        "wl_types.py",
        APP + "number = 3\nempty = []\nmixed = [client, 'x']\n"
        "def needs(a): return a\nasync def later(): return client\ndef wrong(): return 1.5\n",
    )
    assert "it is a int, not a stepwell.Client" in refused("wl_types:number")
    assert "an empty list" in refused("wl_types:empty")
    assert "it is a str, not a stepwell.Client" in refused("wl_types:mixed")
    assert "a function that needs arguments (missing a required argument: 'a')" in refused(
        "wl_types:needs"
    )
    assert "is an async function" in refused("wl_types:later")
    assert "what it returned is a float" in refused("wl_types:wrong")
