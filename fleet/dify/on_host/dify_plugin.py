"""The plugin that knows Ollama: installed, of the declared version, and staying there."""

from __future__ import annotations

import hashlib
import time
import uuid
from pathlib import Path
from typing import Any

from common import say, sha256
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
        """Why the plugin is not the declared one, or could not be brought back."""
        installed, wanted = self.installed(), self._wanted_plugin()
        if list(installed) != [wanted]:
            shown = ", ".join(installed) or "not installed"
            return f"plugin: {shown}, declared is {wanted or self.config['plugin']['package']}"
        if "package" in self.config["plugin"] and self._kept() != wanted:
            return f"plugin: the package of {wanted} is not kept"
        return None

    def do_plugin(self) -> None:
        """Have the declared plugin in place of another version; a failure leaves the other."""
        if "package" in self.config["plugin"]:
            self._have_package()
            return
        new, installed = self.config["plugin"]["identifier"], self.installed()
        old = next((key for key in installed if key != new), None)
        if old is None:
            self._task("install/marketplace", {"plugin_unique_identifiers": [new]})
        else:
            pair = {"original_plugin_unique_identifier": old, "new_plugin_unique_identifier": new}
            self._task("upgrade/marketplace", pair)
        self._wait_for_provider()

    def _have_package(self) -> None:
        """Install the declared package: over another version only once that one is gone.

        Beside it Dify says success and does nothing. Once it is gone the daemon has forgotten it,
        and the package has to be sent again before it can be brought back.
        """
        content = self._declared_package()
        new = self._upload(content)
        self.memory.keep("package", {"sha256": self.config["plugin"]["sha256"], "identifier": new})
        installed = self.installed()
        for old in (key for key in installed if key != new):
            if self._kept() != old:
                raise DifyError(
                    f"plugin: {old} is installed, and its package is not here to go back to: "
                    "declare it (dify_plugin_package, dify_plugin_sha256) and deploy once, or "
                    "remove the plugin on Dify's pages"
                )
        try:
            if list(installed) != [new]:
                self._uninstall(installed)
                self._install(new)
        except RunningError:
            raise
        except DifyError as error:
            self._bring_back(error, new)
        self._keep(content, new)

    def _bring_back(self, error: DifyError, new: str) -> None:
        """Have the kept package in the place of one that does not work. Raises `error` anyhow."""
        kept = self._kept()
        if kept in (None, new):
            raise error
        say(f"{error}; installing {kept} again")
        self._uninstall(self.installed())
        self._install(self._upload(self._kept_path.read_bytes()))
        raise DifyError(f"{error}; {kept} is installed again") from None

    def _uninstall(self, installed: dict[str, str]) -> None:
        for installation in installed.values():
            body = {"plugin_installation_id": installation}
            self.dify.call("POST", f"{WORKSPACE}/plugin/uninstall", body)

    def _install(self, identifier: str) -> None:
        self._task("install/pkg", {"plugin_unique_identifiers": [identifier]})
        self._wait_for_provider()

    @property
    def _kept_path(self) -> Path:
        return Path(self.config["plugin"]["kept"])

    def _kept(self) -> str | None:
        """The identifier of the package that was the last to work, if it is whole."""
        known = self.memory.get("kept")
        if not known or not self._kept_path.exists():
            return None
        whole = sha256(self._kept_path) == known["sha256"]
        return str(known["identifier"]) if whole else None

    def _keep(self, content: bytes, identifier: str) -> None:
        part = self._kept_path.with_name(f".{self._kept_path.name}")
        part.write_bytes(content)
        part.chmod(0o600)
        part.rename(self._kept_path)
        digest = hashlib.sha256(content).hexdigest()
        self.memory.keep("kept", {"sha256": digest, "identifier": identifier})

    def _task(self, path: str, body: dict[str, Any]) -> None:
        answer = self.dify.call("POST", f"{WORKSPACE}/plugin/{path}", body)
        if not answer.value["all_installed"]:
            self._wait_for_task(answer.value["task_id"])

    def _declared_package(self) -> bytes:
        plugin = self.config["plugin"]
        content = Path(plugin["package"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != plugin["sha256"]:
            raise DifyError(f"{plugin['package']}: not the package with the declared checksum")
        return content

    def _upload(self, content: bytes) -> str:
        """Send a package; its identifier. A bad one is refused here."""
        border = uuid.uuid4().hex
        body = (
            (
                f'--{border}\r\nContent-Disposition: form-data; name="pkg"; filename="p.difypkg"'
                "\r\nContent-Type: application/octet-stream\r\n\r\n"
            ).encode()
            + content
            + f"\r\n--{border}--\r\n".encode()
        )
        return str(self._upload_patiently(body, border).value["unique_identifier"])

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
