"""The plugin in place of another version of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dify_console import WORKSPACE, Answer, Dify, DifyError
from dify_plugin import Plugin

OTHER_PROVIDERS = {"data": [{"provider": "langgenius/ollama/ollama"}]}


class Console:
    """Dify's console; packages are texts, and what is `bad` of them cannot be installed.

    With an installation the daemon forgets its package, as the real one does.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there: dict[str, str] = {}
        self.known: set[str] = set()
        self.asked: list[str] = []
        self.bad: set[str] = set()
        self.folder = folder
        monkeypatch.setattr(Dify, "call", self.call)
        monkeypatch.setattr(Plugin, "_upload", lambda _, content: self.upload(content.decode()))

    def upload(self, name: str) -> str:
        self.known.add(name)
        return name

    def plugin(self, **declared: Any) -> Plugin:
        config = {"url": "http://127.0.0.1:9", "memory": str(self.folder / "m"),
                  "plugin": declared, "keys": str(self.folder / "k"), "retry_timeout": 1,
                  "plugin_timeout": 1}  # fmt: skip
        return Plugin(Dify(config))

    def package(self, text: str) -> Plugin:
        """With a package declared."""
        path = self.folder / "package"
        path.write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self.plugin(package=str(path), sha256=digest, kept=str(self.folder / "kept"))

    def call(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        name = path.removeprefix(WORKSPACE).removeprefix("/plugin/")
        self.asked += [name] if method == "POST" and not name.startswith("list") else []
        answer: dict[str, Any] = {"plugins": [
            {"plugin_unique_identifier": key, "id": value} for key, value in self.there.items()
        ]}  # fmt: skip
        if name == "/model-providers":
            answer = OTHER_PROVIDERS
        elif name == "uninstall":
            self.known -= set(self.there)
            self.there.clear()
        elif name.startswith(("install/", "upgrade/")):
            answer = self.install(name, body)
        elif name.startswith("tasks/"):
            wanted = name.removeprefix("tasks/")
            if wanted not in self.bad:
                self.there = {wanted: f"of {wanted}"}
            status = "failed" if wanted in self.bad else "success"
            answer = {"task": {"status": status, "plugins": []}}
        return Answer(200, json.dumps(answer).encode(), [])

    def install(self, name: str, body: Any) -> dict[str, Any]:
        if name.startswith("upgrade/"):
            return {"all_installed": False, "task_id": body["new_plugin_unique_identifier"]}
        [wanted] = body["plugin_unique_identifiers"]
        if name == "install/pkg" and wanted not in self.known:
            raise DifyError("500: Internal Server Error")
        return {"all_installed": bool(self.there), "task_id": "" if self.there else wanted}


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    return Console(tmp_path, monkeypatch)


def test_one_of_the_marketplace_that_cannot_be_installed_leaves_the_one_before(
    console: Console,
) -> None:
    console.there, console.bad = {"old": "1"}, {"new"}
    with pytest.raises(DifyError, match="the plugin was not installed"):
        console.plugin(identifier="new").do_plugin()
    assert list(console.there) == ["old"]
    assert console.asked == ["upgrade/marketplace"]


def test_package_that_cannot_be_installed_leaves_the_one_before(console: Console) -> None:
    """Its dependencies cannot be had, say; every chat would fail meanwhile."""
    console.package("old").do_plugin()
    console.bad, console.asked = {"new"}, []
    plugin = console.package("new")
    with pytest.raises(DifyError, match=r"the plugin was not installed.*; old is installed again"):
        plugin.do_plugin()
    assert list(console.there) == ["old"]
    assert console.asked == ["uninstall", "install/pkg", "install/pkg"]
    assert console.package("old").problem() is not None  # another was the last to be sent
    console.package("old").do_plugin()
    assert console.package("old").problem() is None


def test_killed_between_two_packages_still_goes_back(console: Console) -> None:
    console.package("old").do_plugin()
    console.there.clear()
    console.known.clear()
    console.bad = {"new"}
    with pytest.raises(DifyError, match="old is installed again"):
        console.package("new").do_plugin()
    assert list(console.there) == ["old"]


def test_package_takes_the_place_of_another(console: Console) -> None:
    console.package("old").do_plugin()
    console.package("new").do_plugin()
    assert list(console.there) == ["new"]
    assert console.package("new").problem() is None


def test_nothing_is_taken_away_that_could_not_be_brought_back(console: Console) -> None:
    """Of a marketplace, put there by hand, or by a deploy that kept none."""
    console.there = {"old": "1"}
    with pytest.raises(DifyError, match="old is installed, and its package is not here"):
        console.package("new").do_plugin()
    assert list(console.there) == ["old"]
    assert console.asked == []


@pytest.mark.parametrize("lost", ["unlink", "cut"])
def test_lost_package_is_kept_again(console: Console, tmp_path: Path, lost: str) -> None:
    console.package("old").do_plugin()
    if lost == "unlink":
        (tmp_path / "kept").unlink()
    else:
        (tmp_path / "kept").write_text("ol")
    plugin = console.package("old")
    assert plugin.problem() == "plugin: the package of old is not kept"
    console.asked.clear()
    plugin.do_plugin()
    assert plugin.problem() is None
    assert console.asked == []
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600
