"""The plugin daemon: packages, slow installations, and runtimes that take a while to be there."""

import hmac
import json
import socketserver
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import requests
from psycopg2 import sql

from . import ollama_plugin, package
from .config import Config
from .ollama_plugin import PluginFailureError
from .state import State, as_json
from .web import EVENTS, Answer, HTTPError, Request, Router, event, file_of, reply

_SCHEMA = """
CREATE TABLE IF NOT EXISTS plugin_installations (
    id uuid PRIMARY KEY, tenant_id uuid NOT NULL, plugin_id text NOT NULL,
    plugin_unique_identifier text NOT NULL, source text NOT NULL, created_at timestamp NOT NULL
    DEFAULT now(), UNIQUE (tenant_id, plugin_id));
CREATE TABLE IF NOT EXISTS plugin_declarations (plugin_unique_identifier text PRIMARY KEY);
CREATE TABLE IF NOT EXISTS install_tasks (
    id uuid PRIMARY KEY, tenant_id uuid NOT NULL, task jsonb NOT NULL,
    created_at timestamp NOT NULL DEFAULT now());
"""


class RefusedError(Exception):
    """An answer that is an error, in the daemon's envelope."""

    def __init__(self, kind: str, message: str, code: int = -500, status: int = 200) -> None:
        """Keep them."""
        super().__init__(message)
        self.kind, self.message, self.code, self.status = kind, message, code, status


class PluginDaemon:
    """Its HTTP API, its database and its storage folder."""

    def __init__(self, config: Config) -> None:
        """Open the database, making it when it is not there."""
        self.config = config
        environment = {
            **config.environment,
            "DB_DATABASE": config.text("DB_PLUGIN_DATABASE")
            or config.text("DB_DATABASE", "dify_plugin"),
        }
        self.state = State(Config(environment))
        self._make_database()
        self.storage = Path(config.text("PLUGIN_STORAGE_LOCAL_ROOT", "/app/storage"))
        self.ready: dict[str, float] = {}
        for row in self.state.rows("SELECT plugin_unique_identifier FROM plugin_installations"):
            self._launch(row["plugin_unique_identifier"])

    def _make_database(self) -> None:
        name = self.state.config.database["dbname"]
        parameters = {**self.state.config.database, "dbname": "postgres"}
        connection = psycopg2.connect(**parameters)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if not cursor.fetchone():
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        finally:
            connection.close()
        self.state.rows(_SCHEMA)

    def router(self) -> Router:
        """The routes."""
        router = Router()
        router.add("GET", "/health/check", lambda _: reply({"status": "ok"}))
        management = "/plugin/<tenant>/management"
        for method, path, handler in (
            ("GET", "models", self.models),
            ("GET", "list", self.listing),
            ("POST", "installation/fetch/batch", self.batch),
            ("POST", "installation/missing", self.missing),
            ("POST", "install/upload/package", self.upload),
            ("GET", "decode/from_identifier", self.decode),
            ("POST", "install/identifiers", self.install),
            ("POST", "install/upgrade", self.upgrade),
            ("GET", "install/tasks", self.tasks),
            ("GET", "install/tasks/<task>", self.task),
            ("POST", "uninstall", self.uninstall),
        ):
            router.add(method, f"{management}/{path}", self._enveloped(handler))
        dispatch = "/plugin/<tenant>/dispatch"
        for path, action in (
            ("model/validate_model_credentials", self._validate),
            ("model/schema", self._schema),
            ("llm/invoke", self._invoke),
        ):
            router.add("POST", f"{dispatch}/{path}", self._streamed(action))
        return router

    # Envelopes.

    def _enveloped(self, handler: Any) -> Any:
        def enveloped(request: Request, **parts: str) -> Answer:
            self._need_key(request)
            try:
                data = handler(request, **parts)
            except RefusedError as error:
                return reply(_error(error.code, error.kind, error.message), error.status)
            return reply({"code": 0, "message": "success", "data": data})

        return enveloped

    def _streamed(self, action: Any) -> Any:
        def streamed(request: Request, tenant: str) -> Answer:
            self._need_key(request)
            data = (request.loose_json() or {})["data"]
            try:
                self._need_runtime(tenant, request.headers.get("x-plugin-id", ""))
            except RefusedError as error:
                return reply(_error(error.code, error.kind, error.message), error.status)
            return Answer(200, _events(action(data)), EVENTS)

        return streamed

    def _need_key(self, request: Request) -> None:
        given = request.headers.get("x-api-key", "")
        if not hmac.compare_digest(given, self.config.text("SERVER_KEY")):
            message = "unauthorized"
            kind = "PluginDaemonUnauthorizedError"
            raise HTTPError(reply(_error(-401, kind, message), 401))

    def _need_runtime(self, tenant: str, plugin: str) -> None:
        row = self.state.row(
            "SELECT * FROM plugin_installations WHERE tenant_id = %s AND plugin_id = %s",
            tenant, plugin,
        )  # fmt: skip
        ready = self.ready.get(row["plugin_unique_identifier"]) if row else None
        if ready is None or ready > time.monotonic():
            message = "no available node, plugin runtime not found"
            raise RefusedError("PluginDaemonInternalServerError", message, status=404)

    # Packages and installations.

    def upload(self, request: Request, tenant: str) -> dict[str, Any]:
        """Keep a package, if its signature is good or not asked for."""
        try:
            found = package.read(file_of(request, "dify_pkg"))
        except package.BadPackageError as error:
            raise RefusedError("PluginDaemonBadRequestError", str(error), -400) from error
        if self.config.flag("FORCE_VERIFYING_SIGNATURE", default=True) and not found.signed:
            message = "plugin verification has been enabled, and the plugin you want to install"
            message += " has a bad signature"
            raise RefusedError("PluginDaemonBadRequestError", message, -400)
        path = self._package(found.identifier)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found.content)
        self.state.rows(
            "INSERT INTO plugin_declarations VALUES (%s) ON CONFLICT DO NOTHING", found.identifier
        )
        return {
            "unique_identifier": found.identifier,
            "manifest": found.manifest,
            "verification": {"authorized_category": "langgenius"} if found.signed else None,
        }

    def decode(self, request: Request, tenant: str) -> dict[str, Any]:
        """What a kept package says of itself."""
        return {"manifest": self._declared(request.query["plugin_unique_identifier"]).manifest}

    def install(self, request: Request, tenant: str) -> dict[str, Any]:
        """Begin a task, unless everything is there; another version of it is enough for that."""
        body = request.loose_json() or {}
        wanted = [self._declared(name) for name in body["plugin_unique_identifiers"]]
        there = {row["plugin_id"] for row in self._installed(tenant)}
        missing = [item for item in wanted if item.plugin_id not in there]
        if not missing:
            return {"all_installed": True, "task_id": ""}
        return self._begin(tenant, missing, body.get("source", "package"))

    def upgrade(self, request: Request, tenant: str) -> dict[str, Any]:
        """Begin a task that ends with another version in the place of an installed one."""
        body = request.loose_json() or {}
        there = {row["plugin_unique_identifier"] for row in self._installed(tenant)}
        if body["original_plugin_unique_identifier"] not in there:
            message = "plugin has not been installed"
            raise RefusedError("PluginDaemonBadRequestError", message, -400)
        wanted = [self._declared(body["new_plugin_unique_identifier"])]
        return self._begin(tenant, wanted, body["source"])

    def _begin(self, tenant: str, wanted: list[package.Package], source: str) -> dict[str, Any]:
        task = _new_task(wanted, source)
        self.state.insert("install_tasks", id=task["id"], tenant_id=tenant, task=as_json(task))
        work = (tenant, task, wanted)
        threading.Thread(target=self._work, args=work, daemon=True).start()
        return {"all_installed": False, "task_id": task["id"]}

    def _work(self, tenant: str, task: dict[str, Any], wanted: list[package.Package]) -> None:
        """Install; success is only said once the runtime is there."""
        pause = self.config.number("LAB_PLUGIN_INSTALL_SECONDS", 5)
        time.sleep(pause / 4)
        self._save(task, "running")
        time.sleep(pause * 3 / 4)
        for item, entry in zip(wanted, task["plugins"], strict=True):
            fault = self._dependencies_fault(item)
            if fault:
                entry.update(status="failed", message=fault)
                self._save(task, "failed")
                return
            self._record(tenant, item, entry["source"])
            time.sleep(max(self.ready[item.identifier] - time.monotonic(), 0))
            entry.update(status="success", message="installed")
            task["completed_plugins"] += 1
        self._save(task, "success")

    def _dependencies_fault(self, item: package.Package) -> str:
        """Why they cannot be had, from what it is told. The public index itself is not asked.

        What was installed once has them still.
        """
        mirror = self.config.text("PIP_MIRROR_URL")
        if not mirror or self._folder(item.identifier).exists():
            return ""
        url = f"{mirror.rstrip('/')}/dify-plugin/"
        try:
            requests.get(url, timeout=10).raise_for_status()
        except requests.RequestException as error:
            return f"failed to install dependencies: {error}"
        return ""

    def _folder(self, identifier: str) -> Path:
        """Where an installed plugin lies, with its dependencies."""
        return self.storage / "cwd" / identifier.replace(":", "-")

    def _record(self, tenant: str, item: package.Package, source: str) -> None:
        """Have it installed, in the place of another version."""
        before = [row for row in self._installed(tenant) if row["plugin_id"] == item.plugin_id]
        self._folder(item.identifier).mkdir(parents=True, exist_ok=True)
        self.state.rows(
            "INSERT INTO plugin_installations"
            " (id, tenant_id, plugin_id, plugin_unique_identifier, source)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (tenant_id, plugin_id) DO UPDATE"
            " SET plugin_unique_identifier = EXCLUDED.plugin_unique_identifier",
            str(uuid.uuid4()), tenant, item.plugin_id, item.identifier, source,
        )  # fmt: skip
        self._forget(before)
        self._launch(item.identifier)

    def _launch(self, identifier: str) -> None:
        """Have the runtime be there some seconds from now, if its package is."""
        if not self._package(identifier).exists():
            print(f"launch {identifier}: package not found in storage", file=sys.stderr, flush=True)  # noqa: T201
            return
        pause = self.config.number("LAB_PLUGIN_START_SECONDS", 4)
        self.ready[identifier] = time.monotonic() + pause

    def _save(self, task: dict[str, Any], status: str) -> None:
        task.update(status=status, updated_at=_now())
        for entry in task["plugins"]:
            if entry["status"] in ("pending", "running") and status == "running":
                entry["status"] = status
        self.state.rows(
            "UPDATE install_tasks SET task = %s WHERE id = %s", as_json(task), task["id"]
        )

    def tasks(self, request: Request, tenant: str) -> list[dict[str, Any]]:
        """All tasks, the newest first."""
        rows = self.state.rows(
            "SELECT task FROM install_tasks WHERE tenant_id = %s ORDER BY created_at DESC", tenant
        )
        return [row["task"] for row in rows]

    def task(self, request: Request, tenant: str, task: str) -> dict[str, Any]:
        """One task."""
        row = self.state.row("SELECT task FROM install_tasks WHERE id::text = %s", task)
        if not row:
            raise RefusedError("PluginDaemonNotFoundError", "task not found", -404)
        found: dict[str, Any] = row["task"]
        return found

    def listing(self, request: Request, tenant: str) -> dict[str, Any]:
        """What is installed."""
        found = self._entities(self._installed(tenant))
        return {"list": found, "total": len(found)}

    def batch(self, request: Request, tenant: str) -> list[dict[str, Any]]:
        """What is installed of some plugins."""
        ids = (request.loose_json() or {}).get("plugin_ids", [])
        return self._entities([row for row in self._installed(tenant) if row["plugin_id"] in ids])

    def missing(self, request: Request, tenant: str) -> list[dict[str, Any]]:
        """What is not installed of some versions."""
        there = {row["plugin_unique_identifier"] for row in self._installed(tenant)}
        asked = (request.loose_json() or {}).get("plugin_unique_identifiers", [])
        return [
            {"plugin_unique_identifier": name, "current_identifier": ""}
            for name in asked
            if name not in there
        ]

    def uninstall(self, request: Request, tenant: str) -> bool:
        """Forget an installation, and with the last one what it was an installation of."""
        body = request.loose_json() or {}
        gone = self.state.rows(
            "DELETE FROM plugin_installations WHERE tenant_id = %s AND id::text = %s RETURNING *",
            tenant, body.get("plugin_installation_id"),
        )  # fmt: skip
        self._forget(gone)
        return True

    def _forget(self, gone: list[dict[str, Any]]) -> None:
        for row in gone:
            self.state.rows(
                "DELETE FROM plugin_declarations WHERE plugin_unique_identifier = %s AND"
                " plugin_unique_identifier NOT IN"
                " (SELECT plugin_unique_identifier FROM plugin_installations)",
                row["plugin_unique_identifier"],
            )

    def models(self, request: Request, tenant: str) -> list[dict[str, Any]]:
        """The providers that installed plugins declare."""
        return [
            {
                "id": str(row["id"]),
                "tenant_id": tenant,
                "provider": found.manifest["name"],
                "plugin_id": row["plugin_id"],
                "plugin_unique_identifier": row["plugin_unique_identifier"],
                "declaration": found.provider,
            }
            for row in self._installed(tenant)
            for found in [self._read(row["plugin_unique_identifier"])]
        ]

    def _installed(self, tenant: str) -> list[dict[str, Any]]:
        return self.state.rows("SELECT * FROM plugin_installations WHERE tenant_id = %s", tenant)

    def _entities(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "id": str(row["id"]),
                "name": row["plugin_id"].partition("/")[2],
                "plugin_id": row["plugin_id"],
                "plugin_unique_identifier": row["plugin_unique_identifier"],
                "tenant_id": str(row["tenant_id"]),
                "version": row["plugin_unique_identifier"].partition(":")[2].partition("@")[0],
                "checksum": row["plugin_unique_identifier"].partition("@")[2],
                "source": row["source"],
                "runtime_type": "local",
                "created_at": row["created_at"].isoformat(),
            }
            for row in rows
        ]

    def _package(self, identifier: str) -> Path:
        return self.storage / "plugin_packages" / identifier

    def _declared(self, identifier: str) -> package.Package:
        """What is known by an identifier: uploaded, and not forgotten since."""
        query = "SELECT 1 FROM plugin_declarations WHERE plugin_unique_identifier = %s"
        if not self.state.row(query, identifier):
            message = "plugin declaration not found"
            raise RefusedError("PluginDaemonInternalServerError", message)
        return self._read(identifier)

    def _read(self, identifier: str) -> package.Package:
        path = self._package(identifier)
        if not path.is_file():
            raise RefusedError("PluginDaemonNotFoundError", "package file not found", -404)
        return package.read(path.read_bytes())

    # The plugin.

    def _validate(self, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        ollama_plugin.validate(data["model"], data["credentials"])
        yield {"result": True, "credentials": data["credentials"]}

    def _schema(self, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"model_schema": ollama_plugin.schema(data["model"], data["credentials"])}

    def _invoke(self, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from ollama_plugin.invoke(data)


def _events(pieces: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    try:
        for piece in pieces:
            yield event({"code": 0, "message": "success", "data": piece})
    except PluginFailureError as error:
        yield event(_error(-500, error.kind, str(error)))


def _error(code: int, kind: str, message: str) -> dict[str, Any]:
    text = json.dumps({"message": message, "error_type": kind, "args": None})
    return {"code": code, "message": text, "data": None}


def _new_task(wanted: list[package.Package], source: str) -> dict[str, Any]:
    now = _now()
    return {
        "id": str(uuid.uuid4()),
        "created_at": now,
        "updated_at": now,
        "status": "pending",
        "total_plugins": len(wanted),
        "completed_plugins": 0,
        "plugins": [
            {
                "plugin_unique_identifier": item.identifier,
                "plugin_id": item.plugin_id,
                "status": "pending",
                "message": "",
                "icon": "",
                "labels": {"en_US": item.manifest["label"]["en_US"]},
                "source": source,
            }
            for item in wanted
        ],
    }


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class Debugging(socketserver.ThreadingTCPServer):
    """The port for plugins under development: it is there, and wants a key first."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int) -> None:
        """Listen at once."""
        super().__init__((host, port), _Handshake)


class _Handshake(socketserver.StreamRequestHandler):
    timeout = 10

    def handle(self) -> None:
        """Refuse whatever comes."""
        self.rfile.readline(4096)
        self.wfile.write(b'{"error": "handshake failed, invalid key"}\n')
