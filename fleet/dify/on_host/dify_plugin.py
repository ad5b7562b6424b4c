"""The plugin that knows Ollama: installed, of the declared version, and staying there."""

from __future__ import annotations

import hashlib
import time
import uuid
from pathlib import Path
from typing import Any

from common import say
from dify_console import PROVIDER, WORKSPACE, Answer, Dify, DifyError, RunningError, may_pass

PLUGIN = "langgenius/ollama"


class Plugin:
    """The plugin of one Dify. Every `*problem` looks; every `do_*` changes."""

    def __init__(self, dify: Dify) -> None:
        self.dify, self.config, self.memory = dify, dify.config, dify.memory

    def installed(self) -> dict[str, str]:
        """Identifier to installation id of the plugin, as installed; empty when it is not."""
        answer = self.dify.call(
            "POST", f"{WORKSPACE}/plugin/list/installations/ids", {"plugin_ids": [PLUGIN]}
        )
        return {
            item["plugin_unique_identifier"]: item.get("id", "") for item in answer.value["plugins"]
        }

    def _wanted_plugin(self) -> Any:
        plugin = self.config["plugin"]
        if "identifier" in plugin:
            return plugin["identifier"]
        known = self.memory.get("package") or {}
        return known["identifier"] if known.get("sha256") == plugin["sha256"] else None

    def problem(self) -> str | None:
        """Why the plugin is not the declared one."""
        installed, wanted = self.installed(), self._wanted_plugin()
        if wanted in installed and len(installed) == 1:
            return None
        shown = ", ".join(installed) or "not installed"
        return f"plugin: {shown}, declared is {wanted or self.config['plugin']['package']}"

    def do_plugin(self) -> None:
        """Have the declared plugin in place of another version; a failure leaves the other."""
        declared = self.config["plugin"].get("identifier")
        new = declared or self._upload()
        installed = self.installed()
        old = next((key for key in installed if key != new), None)
        if declared is None:
            self._install_package(new, old, installed.get(old or "", ""))
        elif old is None:
            self._task("install/marketplace", {"plugin_unique_identifiers": [new]})
        else:
            pair = {"original_plugin_unique_identifier": old, "new_plugin_unique_identifier": new}
            self._task("upgrade/marketplace", pair)
        self._wait_for_provider()

    def _install_package(self, new: str, old: str | None, installation: str) -> None:
        """Install an uploaded package: over another version only once that one is gone."""
        if old:
            body = {"plugin_installation_id": installation}
            self.dify.call("POST", f"{WORKSPACE}/plugin/uninstall", body)
        try:
            self._task("install/pkg", {"plugin_unique_identifiers": [new]})
        except RunningError:
            raise
        except DifyError as error:
            if old is None:
                raise
            say(f"{error}; installing {old} again")
            self._task("install/pkg", {"plugin_unique_identifiers": [old]})
            raise DifyError(f"{error}; {old} is installed again") from None

    def _task(self, path: str, body: dict[str, Any]) -> None:
        answer = self.dify.call("POST", f"{WORKSPACE}/plugin/{path}", body)
        if not answer.value["all_installed"]:
            self._wait_for_task(answer.value["task_id"])

    def _upload(self) -> Any:
        plugin = self.config["plugin"]
        content = Path(plugin["package"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != plugin["sha256"]:
            raise DifyError(f"{plugin['package']}: not the package with the declared checksum")
        border = uuid.uuid4().hex
        body = (
            (
                f'--{border}\r\nContent-Disposition: form-data; name="pkg"; filename="p.difypkg"'
                "\r\nContent-Type: application/octet-stream\r\n\r\n"
            ).encode()
            + content
            + f"\r\n--{border}--\r\n".encode()
        )
        answer = self._upload_patiently(body, border)
        identifier = answer.value["unique_identifier"]
        self.memory.keep("package", {"sha256": plugin["sha256"], "identifier": identifier})
        return identifier

    def _upload_patiently(self, body: bytes, border: str) -> Answer:
        path = f"{WORKSPACE}/plugin/upload/pkg"
        headers = {"Content-Type": f"multipart/form-data; boundary={border}"}
        deadline = time.monotonic() + self.config["retry_timeout"]
        while True:
            answer = self.dify.http.request("POST", path, body, headers)
            if answer.status in (200, 201):
                return answer
            if not may_pass(answer, path) or time.monotonic() > deadline:
                raise DifyError(f"the plugin's package: {answer.status}: {answer.message}")
            time.sleep(2)

    def _wait_for_task(self, task: str) -> None:
        deadline = time.monotonic() + self.config["plugin_timeout"]
        shown = ""
        while True:
            value = self.dify.call("GET", f"{WORKSPACE}/plugin/tasks/{task}").value["task"]
            lines = [f"{p['status']} {p.get('message') or ''}".strip() for p in value["plugins"]]
            if value["status"] == "failed":
                raise DifyError(f"the plugin was not installed: {'; '.join(lines)}")
            if value["status"] == "success":
                return
            if time.monotonic() > deadline:
                raise RunningError(
                    f"the plugin's installation still runs after {self.config['plugin_timeout']} s "
                    f"({'; '.join(lines)}); it goes on by itself, run the deploy again"
                )
            if lines and lines[0] != shown:
                shown = lines[0]
                say(f"plugin: {shown}")
            time.sleep(2)

    def _wait_for_provider(self) -> None:
        """The list of providers is not cached while it is empty: it may be asked again."""
        deadline = time.monotonic() + self.config["retry_timeout"]
        while True:
            listed = self.dify.call("GET", f"{WORKSPACE}/model-providers").value["data"]
            if PROVIDER in [item["provider"] for item in listed]:
                return
            if time.monotonic() > deadline:
                raise DifyError(f"the plugin is installed, but {PROVIDER} is not listed")
            time.sleep(2)

    def auto_upgrade_problem(self) -> str | None:
        """Why the pin would not hold: new workspaces take the newest model plugins every day."""
        value = self.dify.call("GET", f"{WORKSPACE}/plugin/auto-upgrade/fetch?category=model").value
        setting = (value.get("auto_upgrade") or value).get("strategy_setting")
        return None if setting == "disabled" else f"plugins upgrade themselves ({setting})"

    def do_auto_upgrade(self) -> None:
        """Have model plugins stay at what is declared."""
        off = {
            "strategy_setting": "disabled", "upgrade_time_of_day": 0, "upgrade_mode": "exclude",
            "exclude_plugins": [], "include_plugins": [],
        }  # fmt: skip
        self.dify.call(
            "POST",
            f"{WORKSPACE}/plugin/auto-upgrade/change",
            {"category": "model", "auto_upgrade": off},
        )
