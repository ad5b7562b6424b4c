"""Apps in the console: import, update, publication and API keys."""

import json
import secrets
import string
import time
import uuid
from typing import Any

import yaml

from .accounts import Session
from .plugins import Plugins
from .state import Row, State, as_json
from .web import Answer, HTTPError, Request, Router, fail, invalid, reply

BASE = "/console/api/apps"
GRAPHS = ("workflow", "advanced-chat")
MODES = (*GRAPHS, "chat", "completion", "agent-chat")
MOST_KEYS = 10
PENDING = 600
ALPHABET = string.ascii_letters + string.digits
EXPIRED = "Import information expired or does not exist"


class ImportFailedError(Exception):
    """Why an import is not done; an answer of status 400."""


class Apps:
    """The routes below apps/."""

    def __init__(self, state: State, router: Router, behind: Any, plugins: Plugins) -> None:
        """Add the routes; fixed paths before those with an id in them."""
        self.state = state
        self.plugins = plugins
        for method, path, handler in (
            ("GET", "", self.listing),
            ("POST", "/imports", self.import_app),
            ("POST", "/imports/<imported>/confirm", self.confirm),
            ("GET", "/imports/<app>/check-dependencies", self.dependencies),
            ("GET", "/<app>", self.show),
            ("DELETE", "/<app>", self.delete),
            ("POST", "/<app>/model-config", self.set_model_config),
            ("POST", "/<app>/api-enable", self.enable_api),
            ("POST", "/<app>/site-enable", self.enable_site),
            ("GET", "/<app>/workflows/draft", self.draft),
            ("GET", "/<app>/workflows/publish", self.published),
            ("POST", "/<app>/workflows/publish", self.publish),
            ("GET", "/<app>/api-keys", self.keys),
            ("POST", "/<app>/api-keys", self.make_key),
            ("DELETE", "/<app>/api-keys/<key>", self.delete_key),
        ):
            router.add(method, BASE + path, behind(handler))

    def listing(self, request: Request, session: Session) -> Answer:
        """Apps, the newest first."""
        page = int(request.query.get("page", "1"))
        limit = int(request.query.get("limit", "20"))
        rows = self.state.rows(
            "SELECT * FROM apps WHERE tenant_id = %s ORDER BY created_at DESC", session.tenant["id"]
        )
        name, mode = request.query.get("name", ""), request.query.get("mode", "")
        rows = [
            r for r in rows if name.lower() in r["name"].lower() and mode in ("", "all", r["mode"])
        ]
        shown = rows[(page - 1) * limit : page * limit]
        return reply(
            {
                "page": page,
                "limit": limit,
                "total": len(rows),
                "has_more": page * limit < len(rows),
                "data": [_summary(row) for row in shown],
            }
        )

    def show(self, _: Request, session: Session, app: str) -> Answer:
        """One app."""
        row = self._app(session, app)
        return reply({**_summary(row), "model_config": row["model_config"]})

    def delete(self, _: Request, session: Session, app: str) -> Answer:
        """Delete an app; its keys answer 403 from then on."""
        self._app(session, app)
        self.state.rows("DELETE FROM apps WHERE id = %s", app)
        return Answer(204)

    # Import.

    def import_app(self, request: Request, session: Session) -> Answer:
        """Make an app of a text, or replace the graph of one."""
        payload = request.json()
        imported = str(uuid.uuid4())
        try:
            if payload.get("mode") != "yaml-content":
                raise ImportFailedError("Invalid import_mode")
            declared = _read(payload.get("yaml_content"))
            status = _status(str(declared.get("version", "")), self.state.config.dsl)
            if status == "pending":
                kept = json.dumps({"declared": declared, "payload": payload})
                self.state.redis.setex(f"app_import_info:{imported}", PENDING, kept)
                return reply(self._result(imported, status, declared), 202)
            app, mode = self._apply(session, declared, payload)
        except ImportFailedError as error:
            return self._failed(imported, str(error))
        return reply(self._result(imported, status, declared, app, mode))

    def confirm(self, _: Request, session: Session, imported: str) -> Answer:
        """Do an import that was put off, once."""
        kept = self.state.redis.getdel(f"app_import_info:{imported}")
        if not kept:
            return self._failed(imported, EXPIRED)
        value = json.loads(kept)
        try:
            app, mode = self._apply(session, value["declared"], value["payload"])
        except ImportFailedError as error:
            return self._failed(imported, str(error))
        return reply(self._result(imported, "completed", value["declared"], app, mode))

    def dependencies(self, _: Request, session: Session, app: str) -> Answer:
        """What plugins a recently imported app names and the daemon does not have."""
        self._app(session, app)
        kept = self.state.redis.get(f"app_check_dependencies:{app}")
        wanted = json.loads(kept) if kept else []
        missing = self.plugins.daemon(session).post(
            "installation/missing", json={"plugin_unique_identifiers": sorted(wanted)}
        )
        leaked = [
            {**wanted[item["plugin_unique_identifier"]],
             "current_identifier": item["current_identifier"]}
            for item in missing
        ]  # fmt: skip
        return reply({"leaked_dependencies": leaked})

    def _apply(
        self, session: Session, declared: dict[str, Any], payload: dict[str, Any]
    ) -> tuple[str, str]:
        data = declared["app"]
        mode = data.get("mode")
        if mode not in MODES:
            raise ImportFailedError("Invalid app mode")
        given = payload.get("app_id")
        config, graph = declared.get("model_config"), declared.get("workflow")
        if mode in GRAPHS and not graph:
            raise ImportFailedError("Missing workflow data for workflow/advanced chat app")
        if mode not in GRAPHS and not config:
            raise ImportFailedError("Missing model_config for chat/agent-chat/completion app")
        if given:
            return self._overwrite(session, str(given), graph)
        app = str(uuid.uuid4())
        self._keep_dependencies(app, declared.get("dependencies") or [])
        self.state.insert(
            "apps", id=app, tenant_id=session.tenant["id"],
            name=payload.get("name") or data.get("name", ""),
            description=data.get("description", ""), mode=mode, icon=data.get("icon"),
            icon_background=data.get("icon_background"), enable_site=True, enable_api=True,
            model_config=as_json(config) if mode not in GRAPHS else None,
            draft=as_json(graph) if mode in GRAPHS else None,
        )  # fmt: skip
        return app, str(mode)

    def _keep_dependencies(self, app: str, declared: Any) -> None:
        """Remember for a while what an app's text says that it needs, by identifier."""
        wanted = {
            item["value"][key]: {**item, "value": {"version": None, **item["value"]}}
            for item in declared
            for key in ("marketplace_plugin_unique_identifier", "plugin_unique_identifier")
            if key in item.get("value", {})
        }
        if wanted:
            self.state.redis.setex(f"app_check_dependencies:{app}", PENDING, json.dumps(wanted))

    def _overwrite(self, session: Session, app: str, graph: Any) -> tuple[str, str]:
        row = self._find(session, app)
        if not row:
            raise ImportFailedError("App not found")
        if row["mode"] not in GRAPHS:
            raise ImportFailedError("Only workflow or advanced chat apps can be overwritten")
        self.state.rows("UPDATE apps SET draft = %s WHERE id = %s", as_json(graph), app)
        return app, str(row["mode"])

    def _result(
        self, imported: str, status: str, declared: dict[str, Any], app: str | None = None,
        mode: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        return {
            "id": imported,
            "status": status,
            "app_id": app,
            "app_mode": mode,
            "current_dsl_version": self.state.config.dsl,
            "imported_dsl_version": str(declared.get("version", "")),
            "error": "",
        }

    def _failed(self, imported: str, why: str) -> Answer:
        return reply({**self._result(imported, "failed", {}), "error": why}, 400)

    # Configuration and publication.

    def set_model_config(self, request: Request, session: Session, app: str) -> Answer:
        """Replace the configuration of a chat app."""
        row = self._app(session, app)
        if row["mode"] in GRAPHS:
            raise fail(404, "app_not_found", "App not found")
        config = request.json()
        if not isinstance(config.get("model"), dict):
            raise invalid("model is required")
        self.state.rows("UPDATE apps SET model_config = %s WHERE id = %s", as_json(config), app)
        return reply({"result": "success"})

    def enable_api(self, request: Request, session: Session, app: str) -> Answer:
        """Switch the service API."""
        return self._enable(request, session, app, "enable_api")

    def enable_site(self, request: Request, session: Session, app: str) -> Answer:
        """Switch the web app."""
        return self._enable(request, session, app, "enable_site")

    def _enable(self, request: Request, session: Session, app: str, what: str) -> Answer:
        self._app(session, app)
        value = request.json().get(what)
        if not isinstance(value, bool):
            raise invalid(f"{what}: Input should be a valid boolean")
        self.state.rows(f"UPDATE apps SET {what} = %s WHERE id = %s", value, app)  # noqa: S608
        return reply(_summary(self._app(session, app)))

    def draft(self, _: Request, session: Session, app: str) -> Answer:
        """The graph that is edited."""
        row = self._graph_app(session, app)
        return reply({"id": app, "hash": "", **row["draft"]})

    def published(self, _: Request, session: Session, app: str) -> Answer:
        """The graph that runs, or null."""
        self._graph_app(session, app)
        found = newest(self.state, app)
        if not found:
            return reply(None)
        return reply(
            {
                "id": str(found["id"]),
                **found["graph"],
                "marked_name": found["marked_name"],
                "marked_comment": found["marked_comment"],
                "created_at": int(found["created_at"].timestamp()),
            }
        )

    def publish(self, request: Request, session: Session, app: str) -> Answer:
        """Have the draft run; a JSON body is needed."""
        row = self._graph_app(session, app)
        payload = request.json()
        self.state.insert(
            "workflows", id=str(uuid.uuid4()), app_id=app, graph=as_json(row["draft"]),
            marked_name=payload.get("marked_name") or "",
            marked_comment=payload.get("marked_comment") or "",
        )  # fmt: skip
        return reply({"result": "success", "created_at": int(time.time())})

    # Keys.

    def keys(self, _: Request, session: Session, app: str) -> Answer:
        """The keys, in clear."""
        self._app(session, app)
        return reply({"data": [_key(row) for row in self._keys(app)]})

    def make_key(self, _: Request, session: Session, app: str) -> Answer:
        """Another key, ten at most."""
        self._app(session, app)
        if len(self._keys(app)) >= MOST_KEYS:
            message = f"Cannot create more than {MOST_KEYS} API keys for this resource type."
            raise HTTPError(reply({"custom": "max_keys_exceeded", "message": message}, 400))
        token = "app-" + "".join(secrets.choice(ALPHABET) for _ in range(24))
        key = str(uuid.uuid4())
        self.state.insert("api_tokens", id=key, app_id=app, token=token)
        row = self.state.row("SELECT * FROM api_tokens WHERE id = %s", key)
        assert row
        return reply(_key(row), 201)

    def delete_key(self, _: Request, session: Session, app: str, key: str) -> Answer:
        """Take a key away."""
        self._app(session, app)
        self.state.rows("DELETE FROM api_tokens WHERE app_id = %s AND id::text = %s", app, key)
        return Answer(204)

    def _keys(self, app: str) -> list[Row]:
        return self.state.rows(
            "SELECT * FROM api_tokens WHERE app_id = %s ORDER BY created_at", app
        )

    def _find(self, session: Session, app: str) -> Row | None:
        return self.state.row(
            "SELECT * FROM apps WHERE id::text = %s AND tenant_id = %s", app, session.tenant["id"]
        )

    def _app(self, session: Session, app: str) -> Row:
        row = self._find(session, app)
        if not row:
            raise fail(404, "app_not_found", "App not found")
        return row

    def _graph_app(self, session: Session, app: str) -> Row:
        row = self._app(session, app)
        if row["mode"] not in GRAPHS:
            raise fail(404, "app_not_found", "App not found")
        return row


def newest(state: State, app: str) -> Row | None:
    """What of an app was published last."""
    return state.row(
        "SELECT * FROM workflows WHERE app_id = %s ORDER BY created_at DESC LIMIT 1", app
    )


def _read(content: Any) -> dict[str, Any]:
    try:
        value = yaml.safe_load(content or "")
    except yaml.YAMLError as error:
        raise ImportFailedError(f"Invalid YAML format: {error}") from error
    if not isinstance(value, dict):
        raise ImportFailedError("Invalid YAML format: content must be a mapping")
    if not isinstance(value.get("app"), dict):
        raise ImportFailedError("Missing app data in YAML content")
    return value


def _status(given: str, own: str) -> str:
    """What becomes of an app format beside our own."""
    try:
        theirs = tuple(int(part) for part in given.split("."))
    except ValueError:
        return "completed-with-warnings"
    ours = tuple(int(part) for part in own.split("."))
    if theirs == ours:
        return "completed"
    return "pending" if theirs > ours else "completed-with-warnings"


def _summary(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "description": row["description"],
        "mode": row["mode"],
        "icon": row["icon"],
        "icon_background": row["icon_background"],
        "enable_site": row["enable_site"],
        "enable_api": row["enable_api"],
        "created_at": int(row["created_at"].timestamp()),
    }


def _key(row: Row) -> dict[str, Any]:
    used = row["last_used_at"]
    return {
        "id": str(row["id"]),
        "type": "app",
        "token": row["token"],
        "last_used_at": int(used.timestamp()) if used else None,
        "created_at": int(row["created_at"].timestamp()),
    }
