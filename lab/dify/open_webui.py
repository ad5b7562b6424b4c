"""Open WebUI: accounts, its settings in a database, and what it hands on to an OpenAI API.

Of the real one's contract what a deploy and a client meet, traps included: an empty database makes
whoever signs up first the administrator, settings in the database win over the environment unless
ENABLE_PERSISTENT_CONFIG is false, health says nothing of the models, and a gateway that refuses the
key leaves an empty list and a 200.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from .config import Config
from .web import Answer, HTTPError, Request, Router, Server, reply

DATABASE = "webui.db"
VERSION = "0.9.6"
_TABLES = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS user (id TEXT PRIMARY KEY, name TEXT, email TEXT UNIQUE, role TEXT);
CREATE TABLE IF NOT EXISTS auth (id TEXT PRIMARY KEY, email TEXT, password TEXT);
CREATE TABLE IF NOT EXISTS config (name TEXT PRIMARY KEY, value TEXT);
"""
# Which settings the database keeps, and what each is without a word of the environment.
_KEPT = {"ENABLE_SIGNUP": "true", "OPENAI_API_BASE_URL": "", "OPENAI_API_KEY": ""}


def serve(config: Config, host: str, port: int) -> int:
    """Serve for ever; 1 when it cannot keep what it needs."""
    try:
        webui = OpenWebUI(config, Path("data"))
    except OSError as error:
        print(f"cannot start: {error}", file=sys.stderr)  # noqa: T201
        return 1
    Server(host, port or int(config.number("PORT", 8080)), webui.router(), {}).serve_forever()
    return 0


def _refused(status: int, detail: str) -> HTTPError:
    return HTTPError(reply({"detail": detail}, status))


class OpenWebUI:
    """One instance over the folder of its volume."""

    def __init__(self, config: Config, data: Path) -> None:
        """Open the database, settle what holds, and make the administrator that is asked for."""
        self._config = config
        self._secret = config.text("WEBUI_SECRET_KEY") or _own_secret()
        self._lock = threading.Lock()
        self._database = sqlite3.connect(data / DATABASE, check_same_thread=False)
        self._database.executescript(_TABLES)
        self._settings = {name: config.text(name) or usual for name, usual in _KEPT.items()}
        if self._persistent:
            self._settings |= dict(self._rows("SELECT name, value FROM config"))
            self._keep()
        # Only while there is nobody: a password in the environment changes none later.
        email, password = config.text("WEBUI_ADMIN_EMAIL"), config.text("WEBUI_ADMIN_PASSWORD")
        if email and password and not self._users:
            self._add(config.text("WEBUI_ADMIN_NAME", "Admin"), email, password, "admin")
            self._set("ENABLE_SIGNUP", "false")

    @property
    def _persistent(self) -> bool:
        return self._config.flag("ENABLE_PERSISTENT_CONFIG", default=True)

    @property
    def _users(self) -> int:
        count: int = self._rows("SELECT count(*) FROM user")[0][0]
        return count

    def _rows(self, query: str, *values: str) -> list[Any]:
        with self._lock, self._database:
            return self._database.execute(query, values).fetchall()

    def _keep(self) -> None:
        for name, value in self._settings.items():
            self._rows("INSERT OR REPLACE INTO config VALUES (?, ?)", name, value)

    def _set(self, name: str, value: str) -> None:
        self._settings[name] = value
        if self._persistent:
            self._keep()

    def _add(self, name: str, email: str, password: str, role: str) -> dict[str, str]:
        user = {"id": secrets.token_hex(16), "name": name, "email": email.lower(), "role": role}
        self._rows("INSERT INTO user VALUES (?, ?, ?, ?)", *user.values())
        self._rows("INSERT INTO auth VALUES (?, ?, ?)", user["id"], email.lower(), _hash(password))
        return user

    def router(self) -> Router:
        """The routes."""
        routes = Router()
        routes.add("GET", "/health", lambda _: reply({"status": True}))
        routes.add("GET", "/api/version", lambda _: reply({"version": VERSION}))
        routes.add("GET", "/api/config", self._about)
        routes.add("POST", "/api/v1/auths/signup", self._sign_up)
        routes.add("POST", "/api/v1/auths/signin", self._sign_in)
        routes.add("POST", "/api/v1/auths/add", self._behind(self._add_user, admin=True))
        routes.add("POST", "/openai/config/update", self._behind(self._connect, admin=True))
        routes.add("GET", "/api/models", self._behind(self._models))
        routes.add("POST", "/api/chat/completions", self._behind(self._chat))
        return routes

    def _about(self, _: Request) -> Answer:
        features = {
            "auth": self._config.flag("WEBUI_AUTH", default=True),
            "enable_signup": self._settings["ENABLE_SIGNUP"].lower() == "true",
            "enable_login_form": self._config.flag("ENABLE_LOGIN_FORM", default=True),
        }
        return reply(
            {"status": True, "name": "Open WebUI", "version": VERSION, "features": features}
        )

    def _sign_up(self, request: Request) -> Answer:
        first = not self._users
        # The switch is not asked about the first account: it is the administrator's.
        if not first and self._settings["ENABLE_SIGNUP"].lower() != "true":
            raise _refused(403, "You do not have permission to access this resource.")
        given = request.json()
        if not re.fullmatch(r"[^@]+@[^@]+\.[^@]+", given["email"]):
            raise _refused(400, "The email format you entered is invalid.")
        role = "admin" if first else self._config.text("DEFAULT_USER_ROLE", "pending")
        user = self._add(given["name"], given["email"], given["password"], role)
        if first:
            self._set("ENABLE_SIGNUP", "false")
        return self._session(user)

    def _sign_in(self, request: Request) -> Answer:
        given = request.json()
        email = given["email"].lower()
        kept = self._rows("SELECT id, password FROM auth WHERE email = ?", email)
        if not kept or not _is(given["password"], kept[0][1]):
            raise _refused(400, "The email or password provided is incorrect.")
        return self._session(self._user(kept[0][0]))

    def _add_user(self, request: Request, _: dict[str, str]) -> Answer:
        given = request.json()
        return self._session(
            self._add(given["name"], given["email"], given["password"], given["role"])
        )

    def _user(self, found: str) -> dict[str, str]:
        rows = self._rows("SELECT id, name, email, role FROM user WHERE id = ?", found)
        if not rows:
            raise _refused(401, "401 Unauthorized")
        return dict(zip(("id", "name", "email", "role"), rows[0], strict=True))

    def _session(self, user: dict[str, str]) -> Answer:
        return reply({**user, "token": self._token(user["id"]), "token_type": "Bearer"})

    def _token(self, user: str) -> str:
        mark = hmac.digest(self._secret.encode(), user.encode(), "sha256")
        return f"{user}.{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"

    def _behind(
        self, handler: Callable[[Request, dict[str, str]], Answer], *, admin: bool = False
    ) -> Callable[[Request], Answer]:
        """Let only who is signed in, and no longer waits to be let in, through to `handler`."""

        def guarded(request: Request) -> Answer:
            user = request.bearer.partition(".")[0]
            if not user or not hmac.compare_digest(self._token(user), request.bearer):
                raise _refused(401, "Not authenticated")
            known = self._user(user)
            if known["role"] not in (("admin",) if admin else ("admin", "user")):
                raise _refused(401, "You do not have permission to access this resource.")
            return handler(request, known)

        return guarded

    def _connect(self, request: Request, _: dict[str, str]) -> Answer:
        """Change the connection, as the administrator's page does."""
        given = request.json()
        self._set("OPENAI_API_BASE_URL", given["OPENAI_API_BASE_URLS"][0])
        self._set("OPENAI_API_KEY", given["OPENAI_API_KEYS"][0])
        return reply(given)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._settings['OPENAI_API_KEY']}"}
        if body:
            headers["Content-Type"] = "application/json"
        url = f"{self._settings['OPENAI_API_BASE_URL']}{path}"
        return requests.request(method, url, headers=headers, data=body, timeout=300, stream=True)

    def _listed(self) -> list[dict[str, Any]]:
        """The far side's models; none when it cannot be asked, with a line in the log."""
        try:
            answer = self._ask("GET", "/models")
            answer.raise_for_status()
            models: list[dict[str, Any]] = answer.json()["data"]
        except (requests.RequestException, ValueError) as error:
            print(f"Connection error: {error}", file=sys.stderr)  # noqa: T201
            return []
        return models

    def _models(self, _: Request, user: dict[str, str]) -> Answer:
        models = self._listed()
        # Until the administrator shares a model it is theirs alone.
        shared = self._config.flag("BYPASS_MODEL_ACCESS_CONTROL", default=False)
        if user["role"] != "admin" and not shared:
            models = []
        if self._config.flag("ENABLE_EVALUATION_ARENA_MODELS", default=True):
            models = [*models, {"id": "arena-model", "owned_by": "arena"}]
        return reply({"data": models})

    def _chat(self, request: Request, _: dict[str, str]) -> Answer:
        if request.json()["model"] not in [model["id"] for model in self._listed()]:
            raise _refused(400, "Model not found")
        answer = self._ask("POST", "/chat/completions", request.body)
        kind = answer.headers.get("Content-Type", "application/json")
        if kind.startswith("text/event-stream"):
            return Answer(answer.status_code, answer.iter_content(None), kind)
        return Answer(answer.status_code, answer.content, kind)


def _own_secret() -> str:
    """Without one in the environment it is made, beside the program: outside of the volume."""
    path = Path(".webui_secret_key")
    if not path.exists():
        path.write_text(secrets.token_hex(12))
    return path.read_text()


def _hash(password: str, salt: str = "") -> str:
    salt = salt or secrets.token_hex(8)
    return json.dumps(
        [salt, hashlib.scrypt(password.encode(), salt=salt.encode(), n=1024, r=8, p=1).hex()]
    )


def _is(password: str, kept: str) -> bool:
    return hmac.compare_digest(_hash(password, json.loads(kept)[0]), kept)
