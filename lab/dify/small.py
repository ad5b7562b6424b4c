"""The services that a bootstrap and a chat never ask: each is up, and wants its key."""

import base64
import hmac
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import Config
from .web import HTML, Answer, HTTPError, Request, Router, Server, fail, reply

_PAGE = b"<!doctype html>\n<html><head><title>Dify</title></head><body>Dify</body></html>\n"


def serve(mode: str, config: Config, host: str, port: int) -> int:
    """Serve one of them for ever; 2 for one that is not known."""
    if mode not in _MODES:
        print(f"{mode}: one of {', '.join(_MODES)}", file=sys.stderr)  # noqa: T201
        return 2
    default, routes = _MODES[mode]
    Server(host, port or default, routes(config), {}).serve_forever()
    return 0


def _need(given: str, key: str) -> None:
    if not hmac.compare_digest(given, key):
        raise HTTPError(fail(401, "unauthorized", "Unauthorized").answer)


def _web(_: Config) -> Router:
    """dify-web: a page for every path."""
    router = Router()
    router.add("GET", "/<path:path>", lambda _, path: Answer(200, _PAGE, HTML))
    router.add("GET", "/", lambda _: Answer(200, _PAGE, HTML))
    return router


def _sandbox(config: Config) -> Router:
    """dify-sandbox: its health, and code that it does not run."""
    router = Router()
    router.add("GET", "/health", lambda _: reply("ok"))

    def run(request: Request) -> Answer:
        _need(request.headers.get("x-api-key", ""), config.text("API_KEY"))
        return reply({"code": -500, "message": "the lab runs no code", "data": None})

    router.add("POST", "/v1/sandbox/run", run)
    return router


def _weaviate(config: Config) -> Router:
    """Weaviate: readiness, and objects on the disk for those who have the key."""
    router = Router()
    kept = Path(config.text("PERSISTENCE_DATA_PATH", "/var/lib/weaviate")) / "objects.json"
    objects: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    router.add("GET", "/v1/.well-known/ready", lambda _: Answer(200))
    router.add("GET", "/v1/.well-known/live", lambda _: Answer(200))

    def need_key(request: Request) -> None:
        if not config.flag("AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED", default=False):
            _need(request.bearer, config.text("AUTHENTICATION_APIKEY_ALLOWED_KEYS"))

    def schema(request: Request) -> Answer:
        need_key(request)
        return reply({"classes": [{"class": name} for name in {o["class"] for o in objects}]})

    def add(request: Request) -> Answer:
        need_key(request)
        objects.extend(request.json()["objects"])
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(objects))
        return reply([])

    def listing(request: Request) -> Answer:
        need_key(request)
        wanted = request.query.get("class")
        return reply({"objects": [o for o in objects if o["class"] == wanted]})

    router.add("GET", "/v1/schema", schema)
    router.add("POST", "/v1/batch/objects", add)
    router.add("GET", "/v1/objects", listing)
    return router


def _agent_backend(config: Config) -> Router:
    """dify-agent-backend: its health, and a key of exactly 32 bytes or no start."""
    text = config.text("DIFY_AGENT_SERVER_SECRET_KEY")
    try:
        length = len(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        length = 0
    if "=" in text or length != 32:
        raise SystemExit("DIFY_AGENT_SERVER_SECRET_KEY must be unpadded base64url of 32 bytes")
    return _healthz(config)


def _healthz(_: Config) -> Router:
    """dify-agent-local-sandbox: its health."""
    router = Router()
    router.add("GET", "/healthz", lambda _: reply({"status": "ok"}))
    return router


_MODES: dict[str, tuple[int, Callable[[Config], Router]]] = {
    "web": (3000, _web),
    "sandbox": (8194, _sandbox),
    "weaviate": (8080, _weaviate),
    "agent-backend": (5050, _agent_backend),
    "local-sandbox": (5004, _healthz),
}
