"""The stand-in for Dify against what was observed on the real server, 1.15.0 (row by row)."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.lab.upstream.dify_console import (
    CHAT_CONFIG,
    CREDENTIALS,
    GRAPH,
    MODELS,
    OWNER,
    PLUGIN,
    PROVIDER,
    Console,
    credentials,
    dsl,
    events,
    question,
    refused,
    service,
)  # fmt: skip
from tests.lab.upstream.dify_rig import INIT, ROOT, SECRET, Rig
from tests.lab.upstream.rig import MODEL, Server, free_port, reachable, until


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Not below pytest's own folder, which PostgreSQL's user may not enter."""
    with tempfile.TemporaryDirectory(prefix="dify-rig-") as folder:
        Path(folder).chmod(0o755)
        rig = Rig(Path(folder))
        try:
            yield rig.start()
        finally:
            rig.stop()


@pytest.fixture(scope="module")
def open_rig() -> Iterator[Rig]:
    """Without an init password, and of a release that a deploy refuses."""
    with tempfile.TemporaryDirectory(prefix="dify-rig-") as folder:
        Path(folder).chmod(0o755)
        rig = Rig(Path(folder), version="1.14.2", init_password="")
        try:
            yield rig.start()
        finally:
            rig.stop()


@contextmanager
def restarted(rig: Rig, name: str, **settings: str) -> Iterator[None]:
    """With a process that is told something else."""
    rig.stop(name)
    rig.run(name, **settings)
    try:
        if name == "plugin-daemon":
            until(lambda: reachable(f"127.0.0.1:{rig.ports[name]}"), "the daemon listens")
        yield
    finally:
        rig.stop(name)
        rig.run(name)
        if name == "plugin-daemon":
            until(lambda: reachable(f"127.0.0.1:{rig.ports[name]}"), "the daemon listens")


def installed(owner: Console) -> str:
    """The version of the Ollama plugin."""
    return str(installation(owner)["version"])


def installation(owner: Console) -> dict[str, Any]:
    """What there is of the Ollama plugin."""
    asked = {"plugin_ids": ["langgenius/ollama"]}
    found = owner.ask("POST", f"{PLUGIN}/list/installations/ids", asked).json()["plugins"]
    first: dict[str, Any] = found[0]
    return first


def uninstall(owner: Console) -> None:
    """Take the Ollama plugin away."""
    body = {"plugin_installation_id": installation(owner)["id"]}
    assert owner.ask("POST", f"{PLUGIN}/uninstall", body).json() == {"success": True}


def uploaded(owner: Console, package: bytes) -> dict[str, Any]:
    """What asks for an installation of a package that was just sent."""
    sent = owner.ask("POST", f"{PLUGIN}/upload/pkg", files={"pkg": ("p", package)})
    return {"plugin_unique_identifiers": [sent.json()["unique_identifier"]]}


@pytest.fixture(scope="module")
def owner(rig: Rig) -> Console:
    """A browser after the first visit."""
    console = Console(rig.url)
    assert console.ask("POST", "init", {"password": INIT}).status_code == 201
    assert console.ask("POST", "setup", OWNER).status_code == 201
    assert console.login().json() == {"result": "success"}
    return console


@pytest.fixture(scope="module")
def plugin(rig: Rig, owner: Console) -> str:
    """The installed plugin's identifier."""
    sent = owner.ask("POST", f"{PLUGIN}/upload/pkg", files={"pkg": ("p", rig.package())})
    assert sent.status_code == 200, sent.text
    identifier: str = sent.json()["unique_identifier"]
    install = {"plugin_unique_identifiers": [identifier]}
    begun = owner.ask("POST", f"{PLUGIN}/install/pkg", install).json()
    assert begun["all_installed"] is False
    seen = []

    def finished() -> bool:
        task = owner.get(f"{PLUGIN}/tasks/{begun['task_id']}")["task"]
        seen.append(task["status"])
        return bool(task["status"] == "success")

    until(finished, "the task ends")
    assert seen[0] in ("pending", "running")
    # The runtime is there once the task has ended well.
    url = f"{CREDENTIALS}/validate"
    assert owner.ask("POST", url, credentials("http://127.0.0.1:9")).status_code == 200
    return identifier


@pytest.fixture(scope="module")
def model(owner: Console, plugin: str, shared: Server) -> str:
    """A registered model; its Ollama's address."""
    answer = owner.ask("POST", CREDENTIALS, {**credentials(shared.url), "name": "first"})
    assert (answer.status_code, answer.json()) == (201, {"result": "success"})
    return shared.url


def app_key(owner: Console, app: str) -> str:
    made = owner.ask("POST", f"apps/{app}/api-keys")
    assert made.status_code == 201
    token: str = made.json()["token"]
    assert token.startswith("app-")
    assert len(token) == 28
    return token


@pytest.fixture(scope="module")
def chat_app(owner: Console, model: str) -> tuple[str, str]:
    """An app of mode chat and its key."""
    made = owner.ask("POST", "apps/imports", dsl("0.7.0", "chat", model_config=CHAT_CONFIG)).json()
    assert made["status"] == "completed"
    return made["app_id"], app_key(owner, made["app_id"])


@pytest.fixture(scope="module")
def flow_app(owner: Console, model: str) -> tuple[str, str]:
    """A published app of mode advanced-chat and its key."""
    made = owner.ask("POST", "apps/imports", dsl("0.7.0", "advanced-chat", workflow=GRAPH)).json()
    path = f"apps/{made['app_id']}/workflows/publish"
    assert owner.get(path) is None
    assert owner.ask("POST", path).status_code == 415
    published = owner.ask("POST", path, {"marked_name": "v1", "marked_comment": ""})
    assert published.json()["result"] == "success"
    assert owner.get(path)["marked_name"] == "v1"
    return made["app_id"], app_key(owner, made["app_id"])


class TestFirstVisit:
    """In this order: what is asked before there is an owner."""

    def test_nothing_goes_before_the_init_password(self, rig: Rig) -> None:
        console = Console(rig.url)
        assert console.get("setup") == {"step": "not_started", "setup_at": None}
        assert console.get("init") == {"status": "not_started"}
        unauthorized = {
            "error": {"type": "authentication_error", "message": "Unauthorized", "status": 401}
        }
        for path, body in (("setup", OWNER), ("init", {"password": "wrong"})):
            answer = console.ask("POST", path, body)
            assert (answer.status_code, answer.json()) == (401, unauthorized)
        assert console.login().json()["code"] == "not_init_validated"

    @pytest.mark.parametrize("body", [{"password": "x" * 31}, {}, {"password": 1}])
    def test_init_password_of_a_bad_form(self, rig: Rig, body: Any) -> None:
        refused(Console(rig.url).ask("POST", "init", body), 422, "Validation error for parameter")

    @pytest.mark.parametrize(
        "change",
        [
            {"email": "admin@localhost"}, {"email": "admin@192.168.1.1"}, {"email": "nomail"},
            {"password": "short1x"}, {"password": "lettersonly"}, {"password": "é1234567"},
            {"name": "n" * 31}, {"name": None},
        ],
    )  # fmt: skip
    def test_bad_field_is_not_named(self, rig: Rig, change: dict[str, Any]) -> None:
        answer = Console(rig.url).ask("POST", "setup", OWNER | change)
        refused(answer, 422, "Validation error for parameter 'payload'")

    def test_owner_is_made_once(self, rig: Rig, owner: Console) -> None:
        assert owner.get("setup")["step"] == "finished"
        assert owner.get("init") == {"status": "finished"}
        refused(owner.ask("POST", "setup", OWNER), 403, "authorization_error")
        refused(owner.ask("POST", "setup", {}), 422, "validation_error")
        refused(owner.ask("POST", "init", {"password": INIT}), 403, "Forbidden")
        keys = list((rig.folder / "app/storage/privkeys").glob("*/private.pem"))
        assert len(keys) == 1
        assert (rig.folder / "app/storage/.dify_secret_key").exists()


class TestNoInitPassword:
    """Whoever comes first is the owner."""

    def test_setup_works_at_once(self, open_rig: Rig) -> None:
        console = Console(open_rig.url)
        assert console.get("init") == {"status": "finished"}
        assert console.login().json()["code"] == "not_setup"
        refused(console.ask("POST", "init", {"password": "any"}), 401, "Unauthorized")
        assert console.ask("POST", "init", {"password": ""}).status_code == 201
        owner = OWNER | {"name": "", "language": "xx-YY"}
        assert console.ask("POST", "setup", owner).status_code == 201
        assert console.login().status_code == 200
        profile = console.get("account/profile")
        assert profile["interface_language"] == "en-US"
        assert profile["timezone"] == "America/New_York"
        workspace = console.ask("POST", "workspaces/current").json()
        assert (workspace["name"], workspace["role"]) == ("'s Workspace", "owner")

    def test_what_is_not_there(self, open_rig: Rig) -> None:
        console = Console(open_rig.url)
        unknown = console.ask("GET", "nothing")
        assert (unknown.status_code, unknown.headers["Content-Type"][:9]) == (404, "text/html")
        wrong = console.ask("GET", "workspaces/current")
        assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
        version = console.get("version?current_version=1.16.1")
        assert version["version"] == "1.14.2"

    def test_older_release_has_no_word_of_upgrades(self, open_rig: Rig) -> None:
        """Its apps have the format of 1.15.0."""
        console = Console(open_rig.url)
        assert console.login().status_code == 200
        answer = console.ask("GET", f"{PLUGIN}/auto-upgrade/fetch?category=model")
        assert (answer.status_code, answer.headers["Content-Type"][:9]) == (404, "text/html")
        made = console.ask("POST", "apps/imports", dsl("0.6.0", "chat", model_config=CHAT_CONFIG))
        assert made.json()["status"] == "completed"


class TestLogin:
    def test_cookies(self, rig: Rig, owner: Console) -> None:
        answer = Console(rig.url).login()
        cookies = answer.raw.headers.getlist("Set-Cookie")
        names = [cookie.partition("=")[0] for cookie in cookies]
        assert names == ["access_token", "refresh_token", "csrf_token"]
        assert ["HttpOnly" in cookie for cookie in cookies] == [True, True, False]
        assert all("Path=/" in c and "SameSite=Lax" in c and "Secure" not in c for c in cookies)

    def test_profile_wants_the_csrf_header(self, rig: Rig, owner: Console) -> None:
        assert owner.get("account/profile")["email"] == OWNER["email"].lower()
        path, key = "account/profile", "X-CSRF-Token"
        refused(owner.ask("GET", path, headers={key: ""}), 401, "CSRF token is missing or invalid.")
        refused(owner.ask("GET", path, headers={key: "x"}), 401, "CSRF token is missing or")
        refused(Console(rig.url).ask("GET", path), 401, "Invalid Authorization token.")
        token = owner.session.cookies["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        refused(Console(rig.url).ask("GET", path, headers=bearer), 401, "CSRF token is missing")

    def test_refresh_token_is_used_up(self, rig: Rig, owner: Console) -> None:
        console = Console(rig.url)
        console.login()
        token = {"refresh_token": console.session.cookies["refresh_token"]}
        url = f"{rig.url}/console/api/refresh-token"
        assert requests.post(url, cookies=token, timeout=5).status_code == 200
        refused(requests.post(url, cookies=token, timeout=5), 401, "Invalid refresh token")

    def test_seventh_wrong_password_locks_for_a_day(self, rig: Rig, owner: Console) -> None:
        console = Console(rig.url)
        plain = {"email": OWNER["email"], "password": "Passw0rd-123"}
        for _ in range(8):
            refused(console.ask("POST", "login", plain), 401, "Invalid encrypted data")
        for _ in range(6):
            refused(console.login("Passw0rd-124"), 401, "Invalid email or password.")
        refused(console.login(), 429, "email_code_login_limit")
        words = ("--new-password", "Passw0rd-124", "--password-confirm")
        email = ("reset-password", "--email", OWNER["email"])
        failed = rig.flask(*email, *words, "Passw0rd-125")
        assert (failed.returncode, "Password reset successfully." in failed.stdout) == (0, False)
        done = rig.flask(*email, *words, "Passw0rd-124")
        assert "Password reset successfully." in done.stdout
        assert console.login("Passw0rd-124").status_code == 200
        rig.flask(*email, "--new-password", OWNER["password"], "--password-confirm",
                        OWNER["password"])  # fmt: skip
        assert console.login().status_code == 200


class TestPlugin:
    def test_unsigned_package_is_refused(self, rig: Rig, owner: Console) -> None:
        package = rig.package("9.9.9", signed=False)
        answer = owner.ask("POST", f"{PLUGIN}/upload/pkg", files={"pkg": ("p", package)})
        refused(answer, 400, "has a bad signature")
        answer = owner.ask("POST", f"{PLUGIN}/upload/pkg", files={"file": ("p", package)})
        refused(answer, 400, "bad_request_key_error")

    def test_marketplace_is_off(self, owner: Console, plugin: str) -> None:
        wanted = {"plugin_unique_identifiers": [plugin]}
        refused(owner.ask("POST", f"{PLUGIN}/install/marketplace", wanted), 400, "is not enabled")
        latest = {"plugin_ids": ["langgenius/ollama"]}
        answer = owner.ask("POST", f"{PLUGIN}/list/latest-versions", latest).json()
        assert answer == {"versions": {"langgenius/ollama": None}}

    def test_installed_once(self, owner: Console, plugin: str) -> None:
        asked = {"plugin_ids": ["langgenius/ollama"]}
        (found,) = owner.ask("POST", f"{PLUGIN}/list/installations/ids", asked).json()["plugins"]
        assert found["plugin_unique_identifier"] == plugin
        assert found["version"] == "1.0.0"
        again = {"plugin_unique_identifiers": [plugin]}
        answer = owner.ask("POST", f"{PLUGIN}/install/pkg", again).json()
        assert answer == {"all_installed": True, "task_id": "", "task": None}
        (provider,) = owner.get("workspaces/current/model-providers")["data"]
        assert provider["provider"] == PROVIDER

    def test_models_are_upgraded_unless_that_is_switched_off(self, owner: Console) -> None:
        path = f"{PLUGIN}/auto-upgrade"
        fetch = f"{path}/fetch?category=model"
        assert owner.get(fetch)["auto_upgrade"]["strategy_setting"] == "latest"
        off = {"strategy_setting": "disabled", "upgrade_time_of_day": 0, "upgrade_mode": "exclude",
               "exclude_plugins": [], "include_plugins": []}  # fmt: skip
        body = {"category": "model", "auto_upgrade": off}
        assert owner.ask("POST", f"{path}/change", body).json() == {"success": True}
        assert owner.get(fetch)["auto_upgrade"] == off
        refused(owner.ask("GET", f"{path}/fetch"), 400, "category")

    def test_another_version_beside_one_is_no_installation(
        self, rig: Rig, owner: Console, plugin: str
    ) -> None:
        newer = uploaded(owner, rig.package("1.0.1"))
        beside = owner.ask("POST", f"{PLUGIN}/install/pkg", newer)
        assert (beside.status_code, beside.json()) == (
            200, {"all_installed": True, "task_id": "", "task": None}
        )  # fmt: skip
        assert installed(owner) == "1.0.0"

    def test_package_is_forgotten_with_its_installation(
        self, rig: Rig, owner: Console, plugin: str, registry: str
    ) -> None:
        """And its dependencies come from a mirror, if that has them."""
        newer = uploaded(owner, rig.package("1.0.1"))

        def outcome(wanted: dict[str, Any], mirror: str = "") -> dict[str, Any]:
            with restarted(rig, "plugin-daemon", PIP_MIRROR_URL=mirror):
                task = owner.ask("POST", f"{PLUGIN}/install/pkg", wanted).json()["task_id"]
                path = f"{PLUGIN}/tasks/{task}"
                ends = ("success", "failed")
                until(lambda: owner.get(path)["task"]["status"] in ends, "the task ends")
                found: dict[str, Any] = owner.get(path)["task"]
                return found

        uninstall(owner)
        failed = outcome(newer, f"http://{registry}/nowhere")
        assert "404" in failed["plugins"][0]["message"]
        old = {"plugin_unique_identifiers": [plugin]}
        refused(owner.ask("POST", f"{PLUGIN}/install/pkg", old), 500, "Internal Server Error")
        assert outcome(newer, f"http://{registry}/pypi/simple")["status"] == "success"
        uninstall(owner)
        assert uploaded(owner, rig.package()) == old
        assert outcome(old)["status"] == "success"
        assert installed(owner) == "1.0.0"

    def test_marketplace_is_asked_by_the_proxy_against_private_addresses(
        self, rig: Rig, owner: Console, plugin: str, registry: str
    ) -> None:
        """What the environment says of proxies is not asked, in either direction."""
        nowhere = f"http://127.0.0.1:{free_port()}"
        market = {"MARKETPLACE_ENABLED": "true",
                  "MARKETPLACE_API_URL": f"http://{registry}/marketplace"}  # fmt: skip
        wanted = {"plugin_unique_identifiers": [plugin]}

        def ask(**proxies: str) -> requests.Response:
            with restarted(rig, "api", **market, **proxies):
                until(rig.answers, "the API answers")
                return owner.ask("POST", f"{PLUGIN}/install/marketplace", wanted)

        refused(ask(SSRF_PROXY_HTTP_URL=nowhere), 400, "ProxyError")
        assert ask(HTTP_PROXY=nowhere).json()["all_installed"] is True
        until(rig.answers, "the API answers")

    def test_pin_does_not_hold_unless_upgrades_are_off(
        self, rig: Rig, owner: Console, plugin: str, registry: str
    ) -> None:
        market = {"MARKETPLACE_ENABLED": "true",
                  "MARKETPLACE_API_URL": f"http://{registry}/marketplace"}  # fmt: skip
        strategy = {"upgrade_time_of_day": 0, "upgrade_mode": "exclude", "exclude_plugins": [],
                    "include_plugins": []}  # fmt: skip

        def set_to(what: str) -> None:
            body = {"category": "model", "auto_upgrade": {**strategy, "strategy_setting": what}}
            path = f"{PLUGIN}/auto-upgrade/change"
            assert owner.ask("POST", path, body).json() == {"success": True}

        with restarted(rig, "worker", **market):
            rig.run("beat", LAB_BEAT_SECONDS="0.5", **market)
            try:
                set_to("disabled")
                time.sleep(3)
                assert installed(owner) == "1.0.0"
                set_to("latest")
                until(lambda: installed(owner) == "1.1.0", "the plugin is upgraded")
            finally:
                rig.stop("beat")
                set_to("disabled")
        with restarted(rig, "api", **market):
            until(rig.answers, "the API answers")
            wanted = {"plugin_unique_identifiers": [plugin]}
            begun = owner.ask("POST", f"{PLUGIN}/install/marketplace", wanted)
            # Only an upgrade takes the place of another version.
            assert begun.json()["all_installed"] is True
            assert installed(owner) == "1.1.0"
            [newer] = owner.get(f"{PLUGIN}/list")["plugins"]
            pair = {"original_plugin_unique_identifier": newer["plugin_unique_identifier"],
                    "new_plugin_unique_identifier": plugin}  # fmt: skip
            begun = owner.ask("POST", f"{PLUGIN}/upgrade/marketplace", pair)
            assert begun.json()["all_installed"] is False
            until(lambda: installed(owner) == "1.0.0", "the first one is back")
            refused(owner.ask("POST", f"{PLUGIN}/upgrade/marketplace", pair), 400, "not been inst")
            other = {"plugin_unique_identifiers": [plugin[:-1] + "x"]}
            refused(owner.ask("POST", f"{PLUGIN}/install/marketplace", other), 400, "Failed to")
        until(rig.answers, "the API answers")

    def test_unreachable_daemon_is_a_400(self, rig: Rig, owner: Console, plugin: str) -> None:
        rig.stop("plugin-daemon")
        try:
            refused(
                owner.ask("GET", f"{PLUGIN}/list"), 400, "Failed to request plugin daemon, url: p"
            )
            assert owner.get("workspaces/current/default-model?model_type=llm") == {"data": None}
        finally:
            rig.run("plugin-daemon")
            path = f"{CREDENTIALS}/validate"
            wanted = credentials("http://127.0.0.1:9")
            until(lambda: owner.ask("POST", path, wanted).status_code == 200, "the runtime")


class TestCredentials:
    def test_validation_asks_the_model(self, owner: Console, plugin: str, shared: Server) -> None:
        path = f"{CREDENTIALS}/validate"
        assert owner.ask("POST", path, credentials(shared.url)).json() == {"result": "success"}
        for url, words in (
            (f"http://127.0.0.1:{free_port()}", "Connection refused"),
            (f"{shared.url}/v1", "status code 404"),
        ):
            answer = owner.ask("POST", path, credentials(url))
            assert answer.status_code == 200
            assert answer.json()["result"] == "error"
            assert words in answer.json()["error"]
        unknown = {**credentials(shared.url), "model": "nope:1b"}
        assert "nope:1b" in owner.ask("POST", path, unknown).json()["error"]

    def test_what_is_refused(self, owner: Console, model: str) -> None:
        def ask(values: dict[str, Any]) -> requests.Response:
            return owner.ask("POST", CREDENTIALS, credentials(model) | values)

        without = {"base_url": model, "mode": "chat", "max_tokens": "1"}
        refused(ask({"credentials": without}), 400, "Variable context_size is required")
        numbers = without | {"context_size": 8192}
        refused(ask({"credentials": numbers}), 500, "Internal Server Error")
        refused(ask({"name": "n" * 31}), 400, "name")
        refused(ask({"model_type": "nope"}), 400, "model_type")
        refused(ask({"name": "first"}), 400, f"with name 'first' already exists for {MODEL}.")
        dead = credentials("http://127.0.0.1:9")["credentials"]
        refused(ask({"credentials": dead}), 400, "Connection refused")
        nope = CREDENTIALS.replace(PROVIDER, "langgenius/nope/nope")
        answer = owner.ask("POST", nope, credentials(model))
        refused(answer, 400, "Provider langgenius/nope/nope does not exist.")

    def test_second_record_is_not_the_active_one(self, owner: Console, model: str) -> None:
        query = f"{CREDENTIALS}?model={MODEL}&model_type=llm"
        first = owner.get(query)["current_credential_id"]
        secret = credentials(model, api_key="sk-secret-0123456")
        assert owner.ask("POST", CREDENTIALS, secret).status_code == 201
        found = owner.get(query)
        assert found["current_credential_id"] == first
        names = [item["credential_name"] for item in found["available_credentials"]]
        assert names == ["API KEY 1", "first"]
        second = found["available_credentials"][0]["credential_id"]
        shown = owner.get(f"{query}&credential_id={second}")
        assert shown["credentials"]["api_key"] == "sk-sec************56"
        which = {"model": MODEL, "model_type": "llm", "credential_id": second}
        assert owner.ask("POST", f"{CREDENTIALS}/switch", which).status_code == 200
        refused(owner.ask("POST", f"{CREDENTIALS}/switch", which), 400, "Can't add same credential")
        which["credential_id"] = first
        custom = {**which, "config_from": "custom-model"}
        assert owner.ask("POST", MODELS, custom).status_code == 200
        assert owner.get(query)["current_credential_id"] == first
        which["credential_id"] = second
        assert owner.ask("DELETE", CREDENTIALS, which).status_code == 204
        changed = {**credentials(model, context_size="4096"), "credential_id": first}
        assert owner.ask("PUT", CREDENTIALS, changed).status_code == 200
        found = owner.get(query)
        assert found["credentials"]["context_size"] == "4096"
        assert found["current_credential_name"] == "first"
        changed["credential_id"] = second
        refused(owner.ask("PUT", CREDENTIALS, changed), 400, "Credential record not found.")

    def test_success_that_creates_nothing(self, owner: Console, model: str) -> None:
        other = {**credentials(model), "model": "other:1b"}
        assert owner.ask("POST", MODELS, other).json() == {"result": "success"}
        (found,) = owner.get(MODELS)["data"]
        assert found["model"] == MODEL
        assert found["status"] == "active"

    def test_default_model(self, owner: Console, model: str) -> None:
        path = "workspaces/current/default-model"

        def setting(name: str) -> dict[str, Any]:
            one = {"model_type": "llm", "provider": PROVIDER, "model": name}
            return {"model_settings": [one]}

        refused(owner.ask("POST", path, setting("nope")), 400, "Model nope does not exist.")
        assert owner.ask("POST", path, setting(MODEL)).json() == {"result": "success"}
        found = owner.get(f"{path}?model_type=llm")["data"]
        assert (found["model"], found["provider"]["provider"]) == (MODEL, PROVIDER)


class TestApps:
    def test_versions_of_the_format(self, owner: Console) -> None:
        def status(version: str) -> tuple[int, dict[str, Any]]:
            body = dsl(version, "chat", model_config=CHAT_CONFIG)
            answer = owner.ask("POST", "apps/imports", body)
            return answer.status_code, answer.json()

        assert status("0.6.0")[1]["status"] == "completed-with-warnings"
        code, pending = status("0.7.1")
        assert (code, pending["status"], pending["app_id"]) == (202, "pending", None)
        confirm = f"apps/imports/{pending['id']}/confirm"
        assert owner.ask("POST", confirm).json()["status"] == "completed"
        refused(owner.ask("POST", confirm), 400, "Import information expired or does not exist")
        bad = {"mode": "yaml-content", "yaml_content": ": ["}
        refused(owner.ask("POST", "apps/imports", bad), 400, "Invalid YAML format")

    def test_missing_plugins_are_named(self, owner: Console, plugin: str) -> None:
        def needs(identifier: str) -> dict[str, Any]:
            value = {"marketplace_plugin_unique_identifier": identifier}
            return {"type": "marketplace", "value": value}

        other = "langgenius/other:1.0.0@" + "0" * 64
        wanted = [needs(plugin), needs(other)]
        body = dsl("0.7.0", "chat", model_config=CHAT_CONFIG, dependencies=wanted)
        app = owner.ask("POST", "apps/imports", body).json()["app_id"]
        found = owner.get(f"apps/imports/{app}/check-dependencies")
        (leaked,) = found["leaked_dependencies"]
        assert leaked["current_identifier"] == ""
        assert leaked["value"] == {**needs(other)["value"], "version": None}
        assert owner.ask("DELETE", f"apps/{app}").status_code == 204
        assert owner.ask("GET", f"apps/{app}").status_code == 404

    def test_chat_app_is_not_overwritten(self, owner: Console, chat_app: tuple[str, str]) -> None:
        app, _ = chat_app
        body = {**dsl("0.7.0", "chat", model_config=CHAT_CONFIG), "app_id": app}
        words = "Only workflow or advanced chat apps can be overwritten"
        refused(owner.ask("POST", "apps/imports", body), 400, words)
        config = CHAT_CONFIG | {"opening_statement": "Hello"}
        assert owner.ask("POST", f"apps/{app}/model-config", config).status_code == 200
        assert owner.get(f"apps/{app}")["model_config"]["opening_statement"] == "Hello"
        assert owner.ask("POST", f"apps/{app}/workflows/publish", {}).status_code == 404

    def test_keys(self, owner: Console, chat_app: tuple[str, str]) -> None:
        app, key = chat_app
        assert owner.get(f"apps/{app}/api-keys")["data"][0]["token"] == key
        made = [owner.ask("POST", f"apps/{app}/api-keys") for _ in range(10)]
        assert [answer.status_code for answer in made] == [201] * 9 + [400]
        assert made[-1].json()["custom"] == "max_keys_exceeded"

    def test_who_may_ask(self, owner: Console, chat_app: tuple[str, str]) -> None:
        app, key = chat_app
        assert service(owner.url, key, "info").json()["mode"] == "chat"
        refused(service(owner.url, "app-x", "info"), 401, "Access token is invalid")
        off = {"enable_api": False}
        assert owner.ask("POST", f"apps/{app}/api-enable", off).status_code == 200
        refused(service(owner.url, key, "info"), 403, "API service has been disabled.")
        owner.ask("POST", f"apps/{app}/api-enable", {"enable_api": True})
        assert service(owner.url, key, "info").status_code == 200


class TestAnswers:
    def test_chat(self, rig: Rig, owner: Console, chat_app: tuple[str, str]) -> None:
        answer = service(owner.url, chat_app[1], "chat-messages", question())
        assert answer.status_code == 200, answer.text
        assert "Paris" in answer.json()["answer"]
        assert answer.json()["metadata"]["usage"]["completion_tokens"] > 0
        streamed = service(
            rig.url, chat_app[1], "chat-messages", question(response_mode="streaming")
        )
        found = events(streamed)
        assert found[-1]["event"] == "message_end"
        assert "Paris" in "".join(item.get("answer", "") for item in found)
        refused(service(owner.url, chat_app[1], "chat-messages", {"query": "x"}), 400, "inputs")

    def test_streamed_workflow_runs_in_the_worker(
        self, rig: Rig, owner: Console, flow_app: tuple[str, str]
    ) -> None:
        key = flow_app[1]
        answer = service(rig.url, key, "chat-messages", question())
        assert "Paris" in answer.json()["answer"]
        streaming = question(response_mode="streaming")
        found = events(service(rig.url, key, "chat-messages", streaming))
        assert "Paris" in "".join(item.get("answer", "") for item in found)
        rig.stop("worker")
        try:
            silent = service(rig.url, key, "chat-messages", streaming, stream=True)
            assert next(silent.iter_lines()) == b"event: ping"
            silent.close()
            with pytest.raises(requests.ConnectionError, match="Read timed out"):
                requests.post(
                    f"{rig.url}/v1/chat-messages",
                    json=streaming,
                    timeout=2,
                    headers={"Authorization": f"Bearer {key}"},
                )
        finally:
            rig.run("worker")

    def test_first_stream_after_the_database_came_back_is_silent(
        self, rig: Rig, flow_app: tuple[str, str]
    ) -> None:
        """The worker has a connection of before, and does not look unless it is told to."""
        streaming = question(response_mode="streaming")

        def ask() -> list[dict[str, Any]]:
            answer = requests.post(
                f"{rig.url}/v1/chat-messages", json=streaming, timeout=5,
                headers={"Authorization": f"Bearer {flow_app[1]}"},
            )  # fmt: skip
            return events(answer)

        def again() -> None:
            rig.stop("postgres")
            rig.start_postgres()

        assert ask()[-1]["event"] == "message_end"
        again()
        with pytest.raises(requests.ConnectionError, match="Read timed out"):
            ask()
        assert ask()[-1]["event"] == "message_end"
        with restarted(rig, "worker", SQLALCHEMY_POOL_PRE_PING="true"):
            assert ask()[-1]["event"] == "message_end"
            again()
            assert ask()[-1]["event"] == "message_end"

    def test_model_that_is_switched_off(
        self, owner: Console, chat_app: tuple[str, str], flow_app: tuple[str, str]
    ) -> None:
        """Known before a chat's stream begins; a workflow's ends with it."""
        off = {"model": MODEL, "model_type": "llm"}
        assert owner.ask("PATCH", f"{MODELS}/disable", off).status_code == 200
        try:
            for more in ({}, {"response_mode": "streaming"}):
                answer = service(owner.url, chat_app[1], "chat-messages", question(**more))
                refused(answer, 400, f"Model {MODEL} is disabled.")
            (model,) = owner.get(MODELS)["data"]
            assert (model["model"], model["status"]) == (MODEL, "disabled")
            streaming = question(response_mode="streaming")
            *_, last = events(service(owner.url, flow_app[1], "chat-messages", streaming))
            assert last["event"] == "workflow_finished"
            assert last["data"]["status"] == "failed"
            assert last["data"]["error"] == f"Model {MODEL} is disabled."
        finally:
            owner.ask("PATCH", f"{MODELS}/enable", off)

    def test_daemon_that_is_not_up_has_other_words_in_a_chat(
        self, rig: Rig, owner: Console, chat_app: tuple[str, str], flow_app: tuple[str, str]
    ) -> None:
        """The list of providers is in Redis, for a day."""
        words = "Request to Plugin Daemon Service failed-500"
        streaming = question(response_mode="streaming")
        assert service(owner.url, chat_app[1], "chat-messages", question()).status_code == 200
        with restarted(rig, "plugin-daemon"):
            rig.stop("plugin-daemon")
            refused(service(owner.url, chat_app[1], "chat-messages", question()), 400, words)
            (error,) = events(service(owner.url, chat_app[1], "chat-messages", streaming))
            assert (error["event"], error["status"], error["message"]) == ("error", 400, words)
            blocking = service(owner.url, flow_app[1], "chat-messages", question())
            refused(blocking, 400, f"Run failed: {words}")
            found = events(service(owner.url, flow_app[1], "chat-messages", streaming))
            assert [item["event"] for item in found] == ["node_finished", "workflow_finished"]
            assert found[-1]["data"]["error"] == words
            rig.run("plugin-daemon")
        ask = lambda: service(owner.url, chat_app[1], "chat-messages", question())  # noqa: E731
        until(lambda: ask().status_code == 200, "the runtime")

    def test_streams_need_the_tokenizer_that_the_image_brings(
        self, rig: Rig, owner: Console, chat_app: tuple[str, str], tmp_path: Path
    ) -> None:
        rig.stop("plugin-daemon")
        rig.run("plugin-daemon", TIKTOKEN_CACHE_DIR=str(tmp_path))
        try:
            ask = lambda **more: service(rig.url, chat_app[1], "chat-messages", question(**more))  # noqa: E731
            until(lambda: ask().status_code == 200, "the runtime")
            assert events(ask(response_mode="streaming"))[-1]["event"] == "error"
        finally:
            rig.stop("plugin-daemon")
            rig.run("plugin-daemon")
            until(lambda: ask().status_code == 200, "the runtime")


class TestKnowledge:
    def test_is_in_the_store_of_vectors(self, rig: Rig, owner: Console) -> None:
        rig.run("weaviate")
        until(lambda: reachable(f"127.0.0.1:{rig.ports['weaviate']}"), "weaviate listens")
        made = {"name": "books", "indexing_technique": "high_quality", "lab_texts": ["Paris"]}
        dataset = owner.ask("POST", "datasets", made).json()["id"]
        assert [item["id"] for item in owner.get("datasets?page=1&limit=20")["data"]] == [dataset]
        path = f"datasets/{dataset}/hit-testing"
        (record,) = owner.ask("POST", path, {"query": "capital"}).json()["records"]
        assert record["segment"]["content"] == "Paris"
        rig.stop("weaviate")
        refused(owner.ask("POST", path, {"query": "capital"}), 500, "internal_server_error")


class TestEnvironment:
    """What the environment changes, or keeps from starting."""

    def test_secure_cookies_have_another_name(self, rig: Rig, owner: Console) -> None:
        https = {"CONSOLE_API_URL": "https://dify.test", "CONSOLE_WEB_URL": "https://dify.test"}
        with restarted(rig, "api", **https):
            until(rig.answers, "the API answers")
            console = Console(rig.url)
            answer = console.login()
            cookies = answer.raw.headers.getlist("Set-Cookie")
            assert all(c.startswith("__Host-") and "Secure" in c for c in cookies)
            # Not sent back over plain HTTP, and the others are not looked at.
            refused(console.ask("GET", "account/profile"), 401, "Invalid Authorization token.")
            refused(owner.ask("GET", "account/profile"), 401, "Invalid Authorization token.")
        until(rig.answers, "the API answers")

    @pytest.mark.parametrize(
        ("name", "variable", "value"),
        [
            ("api", "PLUGIN_REMOTE_INSTALL_PORT", "127.0.0.1:5003"),
            ("agent-backend", "DIFY_AGENT_SERVER_SECRET_KEY", "c2hvcnQ"),
        ],
    )
    def test_bad_value_keeps_it_from_starting(
        self, rig: Rig, owner: Console, name: str, variable: str, value: str
    ) -> None:
        done = subprocess.run(
            rig.command("--port", str(free_port()), name),
            env=rig.environment(name) | {variable: value},
            cwd=ROOT / "lab", capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert done.returncode == 1
        assert variable in done.stderr

    def test_migration_is_skipped_while_another_one_runs(self, rig: Rig, owner: Console) -> None:
        redis = ["redis-cli", "-p", str(rig.ports["redis"]), "--no-auth-warning", "-a", SECRET]
        subprocess.run([*redis, "set", "db_upgrade_lock", "1"], check=True, capture_output=True)
        held = rig.flask("upgrade-db")
        subprocess.run([*redis, "del", "db_upgrade_lock"], check=True, capture_output=True)
        said = "Preparing database migration...\nDatabase migration skipped\n"
        assert (held.returncode, held.stdout) == (0, said)
        assert "Database migration successful!" in rig.flask("upgrade-db").stdout


class TestLoss:
    """Last: each breaks what it looks at, and puts it back."""

    def test_health_is_200_without_a_database(self, rig: Rig, owner: Console) -> None:
        rig.stop("redis")
        assert requests.get(f"{rig.url}/health", timeout=5).json()["version"] == "1.16.1"
        assert owner.get("setup")["step"] == "finished"
        assert owner.login().status_code == 500
        rig.stop("postgres")
        assert requests.get(f"{rig.url}/health", timeout=5).status_code == 200
        lost = owner.ask("GET", "setup")
        assert (lost.status_code, lost.headers["Content-Type"][:9]) == (500, "text/html")
        rig.start_stores()
        assert owner.login().status_code == 200

    def test_private_key_is_needed_for_every_answer(
        self, rig: Rig, owner: Console, chat_app: tuple[str, str]
    ) -> None:
        """Redis was emptied by the test before: until then the key would be in it."""
        key = chat_app[1]
        (private,) = (rig.folder / "app/storage/privkeys").glob("*/private.pem")
        away = private.rename(private.with_suffix(".away"))
        with pytest.raises(requests.ConnectionError):
            service(rig.url, key, "chat-messages", question())
        away.rename(private)
        assert service(rig.url, key, "chat-messages", question()).status_code == 200

    def test_upgrade_changes_the_schema_and_there_is_no_way_back(
        self, rig: Rig, owner: Console
    ) -> None:
        rig.stop("api")
        rig.version = "1.17.1"
        assert "Running upgrade" in rig.flask("upgrade-db").stdout
        rig.run("api")
        until(rig.answers, "the API of the new release", 30)
        found = owner.get("workspaces/current/default-model?model_type=llm")["data"]
        assert found["model"] == MODEL
        rig.version = "1.16.1"
        back = rig.flask("upgrade-db")
        assert back.returncode == 1
        assert "Can't locate revision identified by" in back.stderr
