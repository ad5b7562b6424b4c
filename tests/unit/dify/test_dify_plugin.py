"""The plugin in place of another version of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dify_console import WORKSPACE, Answer, Dify, DifyError
from dify_plugin import Plugin


class Console:
    """Dify's console with a plugin installed, of which no other version can be installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, plugin: Any) -> None:
        self.there, self.asked = {"old": "1"}, []
        config = {"url": "http://127.0.0.1:9", "memory": str(folder / "m"), "plugin": plugin,
                  "keys": str(folder / "k"), "retry_timeout": 1, "plugin_timeout": 1}  # fmt: skip
        self.plugin = Plugin(Dify(config))
        monkeypatch.setattr(Plugin, "_upload", lambda _: "new")
        monkeypatch.setattr(Dify, "call", self.call)

    def call(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        name = path.removeprefix(WORKSPACE).removeprefix("/plugin/")
        self.asked += [name] if method == "POST" and not name.startswith("list") else []
        answer: dict[str, Any] = {"plugins": [
            {"plugin_unique_identifier": key, "id": value} for key, value in self.there.items()
        ]}  # fmt: skip
        if name == "uninstall":
            self.there.clear()
        elif name.startswith(("install/", "upgrade/")):
            answer = {"all_installed": False, "task_id": json.dumps(body)}
        elif name.startswith("tasks/"):
            lost = "new" in name
            if not lost:
                self.there["old"] = "2"
            answer = {"task": {"status": "failed" if lost else "success", "plugins": []}}
        return Answer(200, json.dumps(answer).encode(), [])


@pytest.mark.parametrize(
    ("plugin", "asked"),
    [
        ({"identifier": "new"}, ["upgrade/marketplace"]),
        ({"package": "p", "sha256": "x"}, ["uninstall", "install/pkg", "install/pkg"]),
    ],
)
def test_plugin_that_cannot_be_installed_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Any, asked: list[str]
) -> None:
    """Its dependencies cannot be had, say; every chat would fail meanwhile."""
    console = Console(tmp_path, monkeypatch, plugin)
    with pytest.raises(DifyError, match="the plugin was not installed"):
        console.plugin.do_plugin()
    assert list(console.there) == ["old"]
    assert console.asked == asked
