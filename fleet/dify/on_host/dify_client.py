"""Dify's API as a deploy needs it: owner, plugin, models, apps, keys; looked at, then changed.

usage: dify_client.py check|apply|chat|prints CONFIG

Runs on the host, as root, with the standard library only. CONFIG is JSON with secrets in it, mode
0600. `check` changes nothing and prints {"pending": [reason, ...]}; `apply` does what `check` would
list, a line of progress for each; `chat` asks the sample apps a question, whole and streamed;
`prints` tells the hashes of their API keys.
Observed answers of the real API decide what counts as what; docs/decisions/0010-dify.md has them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

PLUGIN = "langgenius/ollama"
PROVIDER = "langgenius/ollama/ollama"
CREDENTIAL = "llm-fleet"
WORKSPACE = "/console/api/workspaces/current"
_PROVIDER_PATH = f"{WORKSPACE}/model-providers/{PROVIDER}"
# A cold model is loaded by the validation and by the first chat.
_LONGEST_ANSWER = 600
# A check waits so long for a backup to let go of Dify.
_FREEZE = 900
_QUESTION = "What is the capital of France?"


class DifyError(Exception):
    """What went wrong, worded for the operator."""


class StartingError(DifyError):
    """A part of Dify is not up yet: the same may be asked again."""


class RunningError(DifyError):
    """What was begun goes on by itself."""


class Answer:
    """An answer: `status`, and `value`, its JSON (None when it has none)."""

    def __init__(self, status: int, body: bytes, cookies: list[str]) -> None:
        self.status, self.body, self.cookies = status, body, cookies
        self.value: Any = None
        with contextlib.suppress(ValueError):
            self.value = json.loads(body) if body else None

    @property
    def message(self) -> str:
        """What the server says is wrong, whichever of its two shapes it uses."""
        if not isinstance(self.value, dict):
            return self.body[:200].decode(errors="replace")
        inner = self.value.get("error")
        source = inner if isinstance(inner, dict) else self.value
        return str(source.get("message") or source.get("error") or source)


class Connection:
    """HTTP to one Dify, with its cookies.

    Cookies are kept by hand: with https addresses in its settings Dify marks them Secure, and a
    client that follows the rules would not send them back over the host's own plain HTTP.
    """

    def __init__(self, url: str, timeout: float = 60) -> None:
        parts = urlsplit(url)
        self._address, self._port = str(parts.hostname), parts.port or 80
        self._timeout = timeout
        self.cookies: dict[str, str] = {}

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Send one request; `body` is JSON unless it is bytes. Raises OSError, HTTPException."""
        with contextlib.closing(self._open(timeout)) as connection:
            response = self._send(connection, method, path, body, headers or {})
            cookies = response.headers.get_all("Set-Cookie") or []
            answer = Answer(response.status, response.read(), cookies)
        for line in answer.cookies:
            name, _, value = line.split(";")[0].partition("=")
            self.cookies[name.strip()] = value
        return answer

    def events(
        self, path: str, body: Any, headers: dict[str, str], timeout: float
    ) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer, each a dict; an answer that is none is raised."""
        with contextlib.closing(self._open(timeout)) as connection:
            response = self._send(connection, "POST", path, body, headers)
            if response.status != 200:
                answer = Answer(response.status, response.read(), [])
                raise _kind_of(answer)(f"{path}: {answer.status}: {answer.message}")
            try:
                for line in response:
                    if line.startswith(b"data:"):
                        yield json.loads(line[5:])
            except TimeoutError:
                raise DifyError(f"{path}: no event for {timeout:.0f} s; is a worker up?") from None

    def _open(self, timeout: float | None) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(
            self._address, self._port, timeout=timeout or self._timeout
        )

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        headers = dict(headers)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        # Its name has a prefix when the cookies are Secure.
        for name, value in self.cookies.items():
            if name.endswith("csrf_token"):
                headers["X-CSRF-Token"] = value
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, path, body, headers)
        return connection.getresponse()


class Memory:
    """What only we know of earlier runs, in a root-only JSON file; losing it costs a write."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        try:
            self.values = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            self.values = {}

    def get(self, name: str) -> Any:
        """What was kept as `name`, or None."""
        return self.values.get(name)

    def keep(self, name: str, value: Any) -> None:
        """Keep `value`, on the disk before this returns."""
        if self.values.get(name) != value:
            self.values[name] = value
            write(self._path, json.dumps(self.values, indent=1))

    def forget(self, name: str) -> None:
        """Keep nothing as `name`."""
        if self.values.pop(name, None) is not None:
            write(self._path, json.dumps(self.values, indent=1))


def write(path: Path, text: str) -> None:
    """Have `text` in the root-only file `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).rename(path)


def fingerprint(value: Any) -> str:
    """A short name for a value that must not be written down."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Dify:
    """One Dify and what it should be. Every `*_problem` looks; every `do_*` changes."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.http = Connection(config["url"])
        self.memory = Memory(config["memory"])
        self.keys = Memory(config["keys"])

    # -- reaching it

    def setup_state(self) -> str | None:
        """`not_started`, `finished`, or None while nothing answers (nginx says 502 meanwhile)."""
        try:
            answer = self.http.request("GET", "/console/api/setup", timeout=10)
        except (OSError, http.client.HTTPException):
            return None
        return str(answer.value["step"]) if answer.status == 200 and answer.value else None

    def wait_ready(self) -> str:
        """Wait for the API. /health answers 200 with its database down, so it is not asked."""
        deadline = time.monotonic() + self.config["ready_timeout"]
        while (state := self.setup_state()) is None:
            if time.monotonic() > deadline:
                raise DifyError(f"{self.config['url']}/console/api/setup: no answer of Dify's API")
            time.sleep(1)
        return state

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        ok: tuple[int, ...] = (200, 201, 204),
        timeout: float | None = None,
    ) -> Answer:
        """A console call that must succeed; tried again while a part of Dify is still starting."""
        deadline = time.monotonic() + self.config["retry_timeout"]
        while True:
            try:
                answer = self.http.request(method, path, body, timeout=timeout)
                reason = f"{answer.status}: {answer.message}"
            except (OSError, http.client.HTTPException) as error:
                answer, reason = None, str(error)
            if answer is not None and answer.status in ok:
                return answer
            lost = answer is None or answer.status in (502, 503, 504)
            # What it asked for may have been made, and asking again would make another.
            once = lost and method == "POST" and path.endswith(_MAKING)
            if once or not _may_pass(answer, path) or time.monotonic() > deadline:
                raise DifyError(f"{method} {path}: {reason}")
            time.sleep(2)

    # -- the owner

    def do_setup(self) -> None:
        """Make the owner's account. A bad field would be a 422 that does not name it: see fleet."""
        owner = self.config["owner"]
        init = self.call("GET", "/console/api/init").value["status"]
        if init == "not_started":
            answer = self.http.request(
                "POST", "/console/api/init", {"password": self.config["init_password"]}
            )
            if answer.status != 201:
                raise DifyError(
                    "Dify does not take the installation password of the secrets store: the "
                    f"containers run with another INIT_PASSWORD ({answer.status})"
                )
        answer = self.http.request(
            "POST",
            "/console/api/setup",
            {key: owner[key] for key in ("email", "name", "password", "language")},
        )
        if answer.status != 201:
            raise DifyError(f"the owner's account was not made: {answer.status}: {answer.message}")

    def login(self) -> None:
        """Log in as the owner, with at most one counted try: the seventh locks out for a day.

        Newer versions want the password in base64, older ones as it is. Plain text that cannot be
        base64 is not counted by the newer ones, so it goes first where the style is not known.

        Raises:
            DifyError: refused now, or with this very password by an earlier run.
        """
        owner = self.config["owner"]
        tried = fingerprint([owner["email"], owner["password"]])
        if self.memory.get("refused") == tried:
            raise DifyError(self._refused("was refused before, and is not tried again"))
        for style in self._styles(owner["password"]):
            answer = self._try_login(owner, style)
            if answer.status == 200:
                self.memory.keep("login_style", style)
                self.memory.forget("refused")
                return
            if answer.message != "Invalid encrypted data":
                break
        if answer.status == 401:
            self.memory.keep("refused", tried)
            raise DifyError(self._refused("is refused"))
        if answer.status == 429:
            # Not counted by Dify, so the next deploy may try: the lock ends by itself.
            raise DifyError(self._refused("was tried too often, Dify is locked for a day, and it"))
        raise DifyError(f"login: {answer.status}: {answer.message}")

    def _styles(self, password: str) -> list[str]:
        if self.memory.get("login_style") == "base64":
            return ["base64"]
        return ["plain", "base64"] if is_no_base64(password) else ["base64"]

    def _try_login(self, owner: dict[str, str], style: str) -> Answer:
        password = owner["password"]
        if style == "base64":
            password = base64.b64encode(password.encode()).decode()
        self.http.cookies.clear()
        body = {"email": owner["email"], "password": password, "remember_me": True}
        deadline = time.monotonic() + self.config["retry_timeout"]
        while True:
            # No answer or a 5xx (Redis is not up yet) says nothing of the password.
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = self.http.request("POST", "/console/api/login", body)
                if answer.status < 500 or time.monotonic() > deadline:
                    return answer
            if time.monotonic() > deadline:
                raise DifyError("login: no answer of Dify's API")
            time.sleep(2)

    def _refused(self, what: str) -> str:
        email, name = self.config["owner"]["email"], self.config["password_name"]
        return (
            f"the password of {email} {what}. If it was changed in Dify, write the present one to "
            f"{name} in the secrets store and deploy. If it is lost, set it to the store's by "
            f"`{self.config['reset_command']}` on the host, then rm {self.config['memory']}"
        )

    # -- the plugin

    def installed(self) -> dict[str, str]:
        """Identifier to installation id of the plugin, as installed; empty when it is not."""
        answer = self.call(
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

    def plugin_problem(self) -> str | None:
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
            self.call("POST", f"{WORKSPACE}/plugin/uninstall", body)
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
        answer = self.call("POST", f"{WORKSPACE}/plugin/{path}", body)
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
            answer = self.http.request("POST", path, body, headers)
            if answer.status in (200, 201):
                return answer
            if not _may_pass(answer, path) or time.monotonic() > deadline:
                raise DifyError(f"the plugin's package: {answer.status}: {answer.message}")
            time.sleep(2)

    def _wait_for_task(self, task: str) -> None:
        deadline = time.monotonic() + self.config["plugin_timeout"]
        shown = ""
        while True:
            value = self.call("GET", f"{WORKSPACE}/plugin/tasks/{task}").value["task"]
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
            listed = self.call("GET", f"{WORKSPACE}/model-providers").value["data"]
            if PROVIDER in [item["provider"] for item in listed]:
                return
            if time.monotonic() > deadline:
                raise DifyError(f"the plugin is installed, but {PROVIDER} is not listed")
            time.sleep(2)

    def auto_upgrade_problem(self) -> str | None:
        """Why the pin would not hold: new workspaces take the newest model plugins every day."""
        value = self.call("GET", f"{WORKSPACE}/plugin/auto-upgrade/fetch?category=model").value
        setting = (value.get("auto_upgrade") or value).get("strategy_setting")
        return None if setting == "disabled" else f"plugins upgrade themselves ({setting})"

    def do_auto_upgrade(self) -> None:
        """Have model plugins stay at what is declared."""
        off = {
            "strategy_setting": "disabled", "upgrade_time_of_day": 0, "upgrade_mode": "exclude",
            "exclude_plugins": [], "include_plugins": [],
        }  # fmt: skip
        self.call(
            "POST",
            f"{WORKSPACE}/plugin/auto-upgrade/change",
            {"category": "model", "auto_upgrade": off},
        )

    # -- models

    def wanted_credentials(self, model: dict[str, Any]) -> dict[str, str]:
        """Text only: numbers and booleans are answered 500."""
        wanted = {
            "base_url": self.config["ollama"]["url"],
            "mode": "chat",
            "context_size": str(model["context_size"]),
            "max_tokens": str(model["max_tokens"]),
            "vision_support": str(model["vision"]).lower(),
            "function_call_support": str(model["tools"]).lower(),
        }
        key = self.config["ollama"].get("key")
        return wanted | ({"api_key": key} if key else {})

    def credential(self, model: dict[str, Any], identifier: str | None = None) -> Any:
        """The record of a model: the active one, or the one called `identifier`."""
        query = {"model": model["name"], "model_type": "llm"}
        query |= {"credential_id": identifier} if identifier else {}
        return self.call("GET", f"{_PROVIDER_PATH}/models/credentials?{urlencode(query)}").value

    def model_problem(self, model: dict[str, Any]) -> str | None:
        """Why a model is not registered as declared."""
        record = self.credential(model)
        if not record["current_credential_id"]:
            return f"model {model['name']}: not registered"
        wanted = self.wanted_credentials(model)
        # A key is shown masked, so what was last sent for this record is remembered.
        sent = (self.memory.get("keys_sent") or {}).get(record["current_credential_id"])
        if sent != fingerprint(wanted.get("api_key")):
            return f"model {model['name']}: its key may be another"
        differing = sorted(
            name
            for name, value in wanted.items()
            if name != "api_key" and record["credentials"].get(name) != value
        )
        return f"model {model['name']}: {', '.join(differing)}" if differing else None

    def do_model(self, model: dict[str, Any]) -> None:
        """Register a model, or change its one record; a second record would shadow nothing."""
        record = self.credential(model)
        named = {
            item["credential_name"]: item["credential_id"]
            for item in record["available_credentials"]
        }
        target = named.get(CREDENTIAL) or record["current_credential_id"]
        target = target or next(iter(named.values()), None)
        body = {
            "model": model["name"],
            "model_type": "llm",
            "credentials": self.wanted_credentials(model),
        }
        path = f"{_PROVIDER_PATH}/models/credentials"
        if target:
            self._validated("PUT", path, {**body, "credential_id": target})
        else:
            self._validated("POST", path, {**body, "name": CREDENTIAL})
        now = self.credential(model)
        if target and now["current_credential_id"] != target:
            switch = {"model": model["name"], "model_type": "llm", "credential_id": target}
            self.call("POST", f"{path}/switch", switch)
            now = self.credential(model)
        sent = dict(self.memory.get("keys_sent") or {})
        sent[now["current_credential_id"]] = fingerprint(body["credentials"].get("api_key"))
        self.memory.keep("keys_sent", sent)

    def _validated(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Saving asks the model a question: it may be loaded by it, and its error is the reason."""
        try:
            self.call(method, path, body, timeout=_LONGEST_ANSWER)
        except DifyError as error:
            raise DifyError(
                f"model {body['model']} at {body['credentials']['base_url']}: {error}"
            ) from None

    def default_model_problem(self) -> str | None:
        """Why the declared default model is not the default."""
        value = self.call("GET", f"{WORKSPACE}/default-model?model_type=llm").value["data"]
        now = value["model"] if value else None
        provider = (value or {}).get("provider") or {}
        wanted = self.config["models"][0]["name"]
        if now == wanted and provider.get("provider", PROVIDER) == PROVIDER:
            return None
        return f"default model: {now}, declared is {wanted}"

    def do_default_model(self) -> None:
        """Have the first declared model as the default."""
        setting = {"model_type": "llm", "provider": PROVIDER,
                   "model": self.config["models"][0]["name"]}  # fmt: skip
        self.call("POST", f"{WORKSPACE}/default-model", {"model_settings": [setting]})

    # -- apps

    def find_app(self, app: dict[str, Any]) -> str | None:
        """The id of the sample app: the remembered one while it is there, else by name and kind."""
        query = urlencode({"page": 1, "limit": 100, "name": app["name"]})
        found = [
            item["id"]
            for item in self.call("GET", f"/console/api/apps?{query}").value["data"]
            if item["name"] == app["name"] and item["mode"] == app["mode"]
        ]
        known = (self.memory.get("apps") or {}).get(app["role"], {}).get("id")
        return known if known in found else next(iter(found), None)

    def app_content(self, app: dict[str, Any], identifier: str) -> Any:
        """What of an app the DSL decides, as Dify has it; None while it is not published."""
        if app["mode"] == "chat":
            return self.call("GET", f"/console/api/apps/{identifier}").value["model_config"]
        published = self.call("GET", f"/console/api/apps/{identifier}/workflows/publish").value
        return published and {key: published.get(key) for key in ("graph", "features")}

    def app_problem(self, app: dict[str, Any]) -> str | None:
        """Why the app is not the declared one: changed here, changed there, or not there."""
        identifier = self.find_app(app)
        if identifier is None:
            return f"app {app['name']!r}: not there"
        known = (self.memory.get("apps") or {}).get(app["role"], {})
        if known.get("id") != identifier or known.get("dsl") != fingerprint(app["dsl"]):
            return f"app {app['name']!r}: not the declared one"
        if known["content"] != fingerprint(self.app_content(app, identifier)):
            return f"app {app['name']!r}: changed since, or not published"
        detail = self.call("GET", f"/console/api/apps/{identifier}").value
        if not detail["enable_api"]:
            return f"app {app['name']!r}: its API is off"
        if detail["enable_site"]:
            return f"app {app['name']!r}: its page needs no login"
        return None

    def do_app(self, app: dict[str, Any]) -> None:
        """Import the app once, then change it; publish it, open its API and close its page."""
        identifier = self.find_app(app)
        if identifier and app["mode"] == "chat":
            # Importing over a chat app is refused, and without app_id makes another one.
            self.call("POST", f"/console/api/apps/{identifier}/model-config", app["model_config"])
        else:
            identifier = self._import(app, identifier)
        if app["mode"] != "chat":
            mark = {"marked_name": "llm-fleet", "marked_comment": ""}
            self.call("POST", f"/console/api/apps/{identifier}/workflows/publish", mark)
        self.call("POST", f"/console/api/apps/{identifier}/api-enable", {"enable_api": True})
        self.call("POST", f"/console/api/apps/{identifier}/site-enable", {"enable_site": False})
        known = dict(self.memory.get("apps") or {})
        known[app["role"]] = {
            "id": identifier,
            "dsl": fingerprint(app["dsl"]),
            "content": fingerprint(self.app_content(app, identifier)),
        }
        self.memory.keep("apps", known)

    def _import(self, app: dict[str, Any], identifier: str | None) -> Any:
        body = {"mode": "yaml-content", "yaml_content": app["dsl"]}
        body |= {"app_id": identifier} if identifier else {}
        answer = self.call("POST", "/console/api/apps/imports", body, ok=(200, 202, 400))
        if answer.status == 202:
            # The DSL is of a newer version than this Dify; it says so, and takes it.
            path = f"/console/api/apps/imports/{answer.value['id']}/confirm"
            answer = self.call("POST", path, {}, ok=(200, 400))
        if answer.status == 400:
            raise DifyError(f"app {app['name']!r}: {answer.message}")
        return answer.value["app_id"]

    def key_problem(self, app: dict[str, Any]) -> str | None:
        """Why the app's kept API key is none of its keys."""
        identifier = self.find_app(app)
        tokens = [item["token"] for item in self._tokens(identifier)] if identifier else []
        if self.keys.get(app["role"]) in tokens:
            return None
        return f"app {app['name']!r}: no API key is kept"

    def do_key(self, app: dict[str, Any]) -> None:
        """Keep one of the app's API keys; a new one is made when it has none."""
        identifier = self.find_app(app)
        tokens = [item["token"] for item in self._tokens(identifier)]
        if not tokens:
            made = self.call("POST", f"/console/api/apps/{identifier}/api-keys")
            tokens = [made.value["token"]]
        self.keys.keep(app["role"], tokens[0])

    def _tokens(self, identifier: str | None) -> Any:
        return self.call("GET", f"/console/api/apps/{identifier}/api-keys").value["data"]

    # -- chats

    def chat(self, app: dict[str, Any]) -> tuple[str, str]:
        """Ask the app, whole and streamed; the two answers.

        Only a streamed workflow proves the worker, and an error comes inside of a 200. The plugin's
        process may come up a minute after the API: until then each is asked again.
        """
        token = self.keys.get(app["role"])
        if token is None:
            raise DifyError(f"app {app['name']!r}: no API key is kept; deploy first")
        headers = {"Authorization": f"Bearer {token}"}
        http_ = Connection(self.config["url"])
        path, patience = "/v1/chat-messages", self.config["stream_timeout"]

        def whole() -> Any:
            answer = http_.request("POST", path, _question("blocking"), headers, _LONGEST_ANSWER)
            if answer.status != 200:
                raise _kind_of(answer)(f"app {app['name']!r}: {answer.status}: {answer.message}")
            return answer.value["answer"]

        def streamed() -> str:
            return _streamed(app, http_.events(path, _question("streaming"), headers, patience))

        limit = self.config["retry_timeout"]
        return _once_up(whole, limit), _once_up(streamed, limit)


def _once_up(ask: Callable[[], Any], limit: float) -> Any:
    deadline = time.monotonic() + limit
    while True:
        try:
            return ask()
        except StartingError:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def _question(mode: str) -> dict[str, Any]:
    # Dify would ask the model a second time, for a title.
    return {
        "inputs": {}, "query": _QUESTION, "user": "llm-fleet", "response_mode": mode,
        "auto_generate_name": False,
    }  # fmt: skip


def _streamed(app: dict[str, Any], events: Iterator[dict[str, Any]]) -> str:
    parts: list[str] = []
    ended = False
    for event in events:
        kind = event.get("event")
        if kind == "error":
            message = str(event.get("message"))
            starts = not any(parts) and _is_starting(message)
            error = StartingError if starts else DifyError
            raise error(f"app {app['name']!r}, streamed: {message}")
        if kind in ("message", "agent_message"):
            parts.append(event.get("answer", ""))
        ended = ended or kind == "message_end"
    if not ended:
        raise DifyError(f"app {app['name']!r}, streamed: the answer has no end")
    return "".join(parts)


_STARTING = ("Failed to request plugin daemon", "no available node, plugin runtime not found")


def _is_starting(message: str) -> bool:
    """Whether an error says that the plugin daemon, or the plugin's process, is not up yet."""
    return any(text in message for text in _STARTING)


def _kind_of(answer: Answer) -> type[DifyError]:
    """The error for a chat's answer that is none."""
    starts = answer.status == 400 and _is_starting(answer.message)
    return StartingError if starts or answer.status in (502, 503, 504) else DifyError


_MAKING = ("/apps/imports", "/confirm", "/api-keys")


def _may_pass(answer: Answer | None, path: str) -> bool:
    """Whether an answer is one of a Dify that still starts."""
    if answer is None or answer.status in (502, 503, 504):
        return True
    if answer.status == 400 and _is_starting(answer.message):
        return True
    # The plugin's process is not up yet; nothing says so but a bare 500.
    return answer.status == 500 and "/models/credentials" in path


def is_no_base64(text: str) -> bool:
    """Whether Dify cannot take `text` for base64; it decodes as leniently as Python does."""
    try:
        base64.b64decode(text)
    except (binascii.Error, ValueError):
        return True
    return False


def steps(dify: Dify) -> Iterator[tuple[Callable[[], str | None], Callable[[], None]]]:
    """Every step after the login, as (what looks, what changes)."""
    yield dify.plugin_problem, dify.do_plugin
    yield dify.auto_upgrade_problem, dify.do_auto_upgrade
    for model in dify.config["models"]:
        yield partial(dify.model_problem, model), partial(dify.do_model, model)
    yield dify.default_model_problem, dify.do_default_model
    for app in dify.config["apps"]:
        yield partial(dify.app_problem, app), partial(dify.do_app, app)
        yield partial(dify.key_problem, app), partial(dify.do_key, app)


def is_frozen(root: Path) -> bool:
    """Whether a backup that is at work has paused Dify; see `dify_stack.py`, which writes these."""
    if not (root / ".frozen").exists():
        return False
    with contextlib.suppress(FileNotFoundError), (root / ".lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    # What a killed one left frozen is to be reported.
    return False


def unfrozen(root: Path, look: Callable[[], list[str]]) -> list[str]:
    """What `look` finds when no backup makes it look so."""
    deadline = time.monotonic() + _FREEZE
    while time.monotonic() < deadline:
        if not is_frozen(root):
            reasons = look()
            if not reasons or not is_frozen(root):
                return reasons
        time.sleep(1)
    return [f"a backup has kept Dify paused for more than {_FREEZE // 60} minutes"]


def check(dify: Dify) -> list[str]:
    """Every reason to change something, found without changing anything."""
    state = dify.setup_state()
    if state is None:
        return ["Dify does not answer"]
    if state == "not_started":
        return ["no owner yet"]
    dify.login()
    reasons = []
    for problem, _ in steps(dify):
        if reason := problem():
            reasons.append(reason)
            # Without the plugin Dify knows no provider that could be asked for its models.
            if reason.startswith("plugin:"):
                break
    return reasons


def apply(dify: Dify) -> None:
    """Have Dify as declared; each step that changed something is checked again."""
    if dify.wait_ready() == "not_started":
        say("making the owner's account")
        dify.do_setup()
        dify.memory.forget("refused")
    dify.login()
    for problem, do in steps(dify):
        reason = problem()
        if reason is None:
            continue
        say(reason)
        do()
        if left := problem():
            raise DifyError(f"{left}, after it was changed")


def chat(dify: Dify) -> None:
    """Have every sample app answer; say what it said."""
    dify.wait_ready()
    for app in dify.config["apps"]:
        whole, streamed = dify.chat(app)
        if not whole.strip() or not streamed.strip():
            raise DifyError(f"app {app['name']!r}: an empty answer")
        say(f"app {app['name']!r}: {' '.join(streamed.split())[:200]}")


def say(text: str) -> None:
    """A line of progress, at once."""
    print(text, flush=True)  # noqa: T201 - the journal is where it goes


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    command, config = arguments
    dify = Dify(json.loads(Path(config).read_text()))
    try:
        if command == "check":
            # Of the stack: beside the memory is what tells of a backup.
            root = Path(dify.config["memory"]).parent
            say(json.dumps({"pending": unfrozen(root, partial(check, dify))}))
        elif command == "prints":
            hashed = {
                k: hashlib.sha256(v.encode()).hexdigest() for k, v in dify.keys.values.items()
            }
            say(json.dumps(hashed))
        else:
            {"apply": apply, "chat": chat}[command](dify)
    except (DifyError, OSError, http.client.HTTPException) as error:
        print(f"Dify: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
