"""Plugins in the console: upload, install, tasks, and their automatic upgrade."""

import json
from typing import Any

import requests

from .accounts import CATEGORIES, Session
from .daemon_client import PLUGIN, Daemon, PluginError, refused
from .migrations import number
from .state import State, as_json
from .web import Answer, Request, Router, file_of, invalid, reply

BASE = "/console/api/workspaces/current/plugin"
PROVIDERS_CACHE = 24 * 3600


class Plugins:
    """The routes below plugin/."""

    def __init__(self, state: State, router: Router, behind: Any) -> None:
        """Add the routes."""
        self.state = state
        self.config = state.config
        for method, path, handler in (
            ("GET", "list", self.listing),
            ("POST", "list/installations/ids", self.installations),
            ("POST", "list/latest-versions", self.latest_versions),
            ("POST", "upload/pkg", self.upload),
            ("POST", "install/pkg", self.install),
            ("POST", "install/marketplace", self.install_from_marketplace),
            ("POST", "upgrade/marketplace", self.upgrade_from_marketplace),
            ("POST", "uninstall", self.uninstall),
            ("GET", "tasks", self.tasks),
            ("GET", "tasks/<task>", self.task),
            ("POST", "auto-upgrade/change", self.change_upgrade),
            ("POST", "auto-upgrade/exclude", self.exclude_upgrade),
        ):
            router.add(method, f"{BASE}/{path}", behind(self._explained(handler)))
        # Up to 1.14.2 it was not there.
        if number(self.config.version) >= (1, 15):
            router.add("GET", f"{BASE}/auto-upgrade/fetch", behind(self.fetch_upgrade))

    def daemon(self, session: Session) -> Daemon:
        """The daemon, for this workspace."""
        return Daemon(self.config, str(session.tenant["id"]))

    def _explained(self, handler: Any) -> Any:
        def explained(request: Request, session: Session, **parts: str) -> Answer:
            try:
                answer: Answer = handler(request, session, **parts)
            except PluginError as error:
                raise refused(error) from error
            return answer

        return explained

    def listing(self, request: Request, session: Session) -> Answer:
        """What is installed."""
        data = self.daemon(session).get(
            "list", page=request.query.get("page", "1"),
            page_size=request.query.get("page_size", "256"), response_type="paged",
        )  # fmt: skip
        return reply({"plugins": data["list"], "total": data["total"]})

    def installations(self, request: Request, session: Session) -> Answer:
        """What is installed of some plugins."""
        ids = request.json().get("plugin_ids", [])
        found = self.daemon(session).post("installation/fetch/batch", json={"plugin_ids": ids})
        return reply({"plugins": found})

    def latest_versions(self, request: Request, _: Session) -> Answer:
        """What the marketplace has; null when it is off, or cannot be reached."""
        ids = request.json().get("plugin_ids", [])
        known = latest(self.state) if self.config.flag("MARKETPLACE_ENABLED", default=True) else {}
        return reply({"versions": {name: known.get(name) for name in ids}})

    def upload(self, request: Request, session: Session) -> Answer:
        """Take a package, and say what it is."""
        package = file_of(request, "pkg")
        return reply(self._send_package(self.daemon(session), package))

    def _send_package(self, daemon: Daemon, package: bytes) -> dict[str, Any]:
        files = {
            "dify_pkg": ("dify_pkg", package, "application/octet-stream"),
            "verify_signature": (None, "false"),
        }
        sent: dict[str, Any] = daemon.post("install/upload/package", files=files)
        return sent

    def install(self, request: Request, session: Session) -> Answer:
        """Begin to install uploaded packages."""
        wanted = request.json().get("plugin_unique_identifiers", [])
        return reply(self._install(self.daemon(session), wanted, "package"))

    def _install(self, daemon: Daemon, wanted: list[str], source: str) -> dict[str, Any]:
        for identifier in wanted:
            daemon.get("decode/from_identifier", plugin_unique_identifier=identifier)
        self._forget_providers(daemon.tenant)
        done: dict[str, Any] = daemon.post(
            "install/identifiers",
            json={"plugin_unique_identifiers": wanted, "source": source, "metas": [{}]},
        )
        return {**done, "task": None}

    def install_from_marketplace(self, request: Request, session: Session) -> Answer:
        """Fetch packages and begin to install them."""
        if not self.config.flag("MARKETPLACE_ENABLED", default=True):
            raise invalid("marketplace is not enabled")
        wanted = request.json().get("plugin_unique_identifiers", [])
        daemon = self.daemon(session)
        self.fetch(daemon, wanted)
        return reply(self._install(daemon, wanted, "marketplace"))

    def fetch(self, daemon: Daemon, wanted: list[str]) -> None:
        """Have the daemon hold the packages of the marketplace.

        By the proxy that keeps requests from private addresses, with its patience; what the
        environment says of proxies is not asked.

        Raises:
            HTTPError: one cannot be had.
        """
        session = requests.Session()
        session.trust_env = False
        for kind in ("http", "https"):
            if by := self.config.text(f"SSRF_PROXY_{kind.upper()}_URL"):
                session.proxies[kind] = by
        for identifier in wanted:
            url = self.config.text("MARKETPLACE_API_URL").rstrip("/")
            try:
                answer = session.get(
                    f"{url}/api/v1/plugins/download",
                    params={"unique_identifier": identifier},
                    timeout=5,
                )
                answer.raise_for_status()
            except requests.RequestException as error:
                raise invalid(f"Failed to download {identifier}: {error}") from error
            sent = self._send_package(daemon, answer.content)
            if sent["unique_identifier"] != identifier:
                raise invalid(f"plugin {identifier} not found")

    def upgrade_from_marketplace(self, request: Request, session: Session) -> Answer:
        """Fetch another version, and begin to put it in the place of what is installed."""
        if not self.config.flag("MARKETPLACE_ENABLED", default=True):
            raise invalid("marketplace is not enabled")
        payload = request.json()
        old = str(payload.get("original_plugin_unique_identifier"))
        new = str(payload.get("new_plugin_unique_identifier"))
        if old == new:
            raise invalid("you should not upgrade plugin with the same plugin")
        return reply(self.upgrade(self.daemon(session), old, new))

    def upgrade(self, daemon: Daemon, old: str, new: str) -> dict[str, Any]:
        """Begin to replace what is installed of a plugin by another version."""
        self.fetch(daemon, [new])
        self._forget_providers(daemon.tenant)
        pair = {"original_plugin_unique_identifier": old, "new_plugin_unique_identifier": new}
        body = {**pair, "source": "marketplace", "meta": {"plugin_unique_identifier": new}}
        done: dict[str, Any] = daemon.post("install/upgrade", json=body)
        return {**done, "task": None}

    def uninstall(self, request: Request, session: Session) -> Answer:
        """Take an installation away."""
        daemon = self.daemon(session)
        installation = request.json().get("plugin_installation_id")
        daemon.post("uninstall", json={"plugin_installation_id": installation})
        self._forget_providers(daemon.tenant)
        return reply({"success": True})

    def tasks(self, _: Request, session: Session) -> Answer:
        """All installations there were."""
        return reply({"tasks": self.daemon(session).get("install/tasks", page=1, page_size=256)})

    def task(self, _: Request, session: Session, task: str) -> Answer:
        """How far one is. Looking at a finished one makes its providers known."""
        daemon = self.daemon(session)
        found = daemon.get(f"install/tasks/{task}")
        if found["status"] in ("success", "failed"):
            self._forget_providers(daemon.tenant)
        return reply({"task": found})

    def providers(self, daemon: Daemon) -> list[dict[str, Any]]:
        """The model providers; kept for a day, unless there are none."""
        key = f"plugin_model_providers:tenant_id:{daemon.tenant}"
        kept = self.state.redis.get(key)
        if kept:
            cached: list[dict[str, Any]] = json.loads(kept)
            return cached
        found: list[dict[str, Any]] = daemon.get("models", page=1, page_size=256)
        if found:
            self.state.redis.setex(key, PROVIDERS_CACHE, json.dumps(found))
        return found

    def _forget_providers(self, tenant: str) -> None:
        self.state.redis.delete(f"plugin_model_providers:tenant_id:{tenant}")

    # Automatic upgrades.

    def change_upgrade(self, request: Request, session: Session) -> Answer:
        """Set how one category is upgraded."""
        payload = request.json()
        new = payload.get("auto_upgrade") or {}
        category = _category(payload.get("category"))
        if new.get("strategy_setting") not in ("disabled", "fix_only", "latest"):
            raise invalid("strategy_setting: Input should be 'disabled', 'fix_only' or 'latest'")
        if new.get("upgrade_mode") not in ("all", "partial", "exclude"):
            raise invalid("upgrade_mode: Input should be 'all', 'partial' or 'exclude'")
        self.state.rows(
            "UPDATE tenant_plugin_auto_upgrade_strategies SET strategy_setting = %s,"
            " upgrade_time_of_day = %s, upgrade_mode = %s, exclude_plugins = %s,"
            " include_plugins = %s WHERE tenant_id = %s AND category = %s",
            new["strategy_setting"], int(new.get("upgrade_time_of_day", 0)), new["upgrade_mode"],
            as_json(new.get("exclude_plugins", [])), as_json(new.get("include_plugins", [])),
            session.tenant["id"], category,
        )  # fmt: skip
        return reply({"success": True})

    def fetch_upgrade(self, request: Request, session: Session) -> Answer:
        """How one category is upgraded."""
        category = _category(request.query.get("category"))
        return reply({"category": category, "auto_upgrade": self._strategy(session, category)})

    def exclude_upgrade(self, request: Request, session: Session) -> Answer:
        """Leave one plugin out."""
        payload = request.json()
        category = _category(payload.get("category"))
        excluded = self._strategy(session, category)["exclude_plugins"]
        excluded = sorted({*excluded, str(payload.get("plugin_id"))})
        self.state.rows(
            "UPDATE tenant_plugin_auto_upgrade_strategies SET exclude_plugins = %s"
            " WHERE tenant_id = %s AND category = %s",
            as_json(excluded), session.tenant["id"], category,
        )  # fmt: skip
        return reply({"success": True})

    def _strategy(self, session: Session, category: str) -> dict[str, Any]:
        row = self.state.row(
            "SELECT strategy_setting, upgrade_time_of_day, upgrade_mode, exclude_plugins,"
            " include_plugins FROM tenant_plugin_auto_upgrade_strategies"
            " WHERE tenant_id = %s AND category = %s",
            session.tenant["id"], category,
        )  # fmt: skip
        assert row
        return row


def latest(state: State) -> dict[str, dict[str, str]]:
    """What the marketplace has as the newest, by plugin; empty when it cannot be reached."""
    url = state.config.text("MARKETPLACE_API_URL").rstrip("/")
    try:
        answer = requests.get(f"{url}/api/v1/dist/plugins/manifest.json", timeout=10)
        answer.raise_for_status()
        plugins = answer.json()["plugins"]
    except (requests.RequestException, ValueError):
        return {}
    return {
        f"{item['org']}/{item['name']}": {
            "version": item["latest_version"],
            "unique_identifier": item["latest_package_identifier"],
        }
        for item in plugins
    }


def upgrade_all(state: State) -> None:
    """What beat has the worker do: the newest Ollama plugin in each workspace that wants it."""
    if not state.config.flag("MARKETPLACE_ENABLED", default=True):
        return
    if not state.config.flag("ENABLE_CHECK_UPGRADABLE_PLUGIN_TASK", default=True):
        return
    newest = latest(state).get(PLUGIN)
    if not newest:
        return
    plugins = Plugins(state, Router(), lambda handler: handler)
    for row in state.rows(
        "SELECT * FROM tenant_plugin_auto_upgrade_strategies"
        " WHERE category = 'model' AND strategy_setting = 'latest'"
    ):
        if PLUGIN in row["exclude_plugins"] and row["upgrade_mode"] == "exclude":
            continue
        daemon = Daemon(state.config, str(row["tenant_id"]))
        found = daemon.post("installation/fetch/batch", json={"plugin_ids": [PLUGIN]})
        for installed in found:
            old, new = installed["plugin_unique_identifier"], newest["unique_identifier"]
            if old != new:
                plugins.upgrade(daemon, old, new)


def _category(value: Any) -> str:
    if value not in CATEGORIES:
        raise invalid(f"category: Input should be one of {', '.join(CATEGORIES)}")
    return str(value)
