"""``python3 -m dify MODE [OPTIONS]``: one container's program. The last lines of each say why."""

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback

import redis

from . import migrations, open_webui, small
from .accounts import Accounts, reset_password
from .apps import Apps
from .chat import QUEUE, Chat, Question
from .config import Config
from .knowledge import Knowledge
from .models import Models
from .plugin_daemon import Debugging, PluginDaemon
from .plugins import Plugins, upgrade_all
from .state import State
from .web import Router, Server, reply

ALL = "0.0.0.0"  # noqa: S104 - in a container


def router(state: State) -> tuple[Router, Chat]:
    """All routes of the API."""
    routes = Router()
    accounts = Accounts(state, routes)
    plugins = Plugins(state, routes, accounts.behind)
    models = Models(state, routes, accounts.behind, plugins)
    Apps(state, routes, accounts.behind, plugins)
    Knowledge(state, routes, accounts.behind)
    chat = Chat(state, routes, models)
    version = state.config.version
    # Static: it is 200 without a database too.
    alive = {"pid": os.getpid(), "status": "ok", "version": version}
    routes.add("GET", "/health", lambda _: reply(alive))
    about = {"version": version, "release_date": "", "release_notes": "", "can_auto_update": False}
    routes.add("GET", "/console/api/version", lambda _: reply(about))
    features = {"enable_marketplace": state.config.flag("MARKETPLACE_ENABLED", default=True)}
    routes.add("GET", "/console/api/system-features", lambda _: reply(features))
    return routes, chat


def api(state: State, host: str, port: int) -> int:
    """Serve, unless this release is the broken one."""
    try:
        state.config.check()
    except ValueError as error:
        print(f"1 validation error for DifyConfig\n{error}", file=sys.stderr)  # noqa: T201
        return 1
    _ = state.secret_key
    if state.config.broken:
        print("ModuleNotFoundError: No module named 'extensions.ext_commands'", file=sys.stderr)  # noqa: T201
        return 1
    routes, _chat = router(state)
    always = {"X-Version": state.config.version, "X-Env": "PRODUCTION"}
    Server(host, port, routes, always).serve_forever()
    return 0


def worker(state: State) -> int:
    """Do what is queued; several at a time, as the real one."""
    _, chat = router(state)
    threading.Thread(target=_beat_of_heart, args=(state,), daemon=True).start()
    while True:
        try:
            found = state.broker.brpop([QUEUE, "plugin"], timeout=5)
        except redis.RedisError as error:
            print(f"consumer: Cannot connect to redis: {error}. Trying again", flush=True)  # noqa: T201
            time.sleep(2)
            continue
        if found:
            threading.Thread(target=_do, args=(state, chat, found[1]), daemon=True).start()


def _do(state: State, chat: Chat, text: bytes) -> None:
    task = json.loads(text)
    try:
        if task["task"] == "run":
            chat.work(Question(**task["question"]))
        else:
            upgrade_all(state)
    except Exception:
        traceback.print_exc()


def _beat_of_heart(state: State) -> None:
    """Say that this worker lives; ``celery inspect ping`` asks."""
    while True:
        try:
            state.broker.setex(f"celery-worker:{socket.gethostname()}", 6, b"pong")
        except redis.RedisError as error:
            print(f"heartbeat: {error}", flush=True)  # noqa: T201
        time.sleep(2)


def beat(state: State) -> int:
    """Have plugins upgraded, again and again; 15 minutes apart unless told otherwise."""
    pause = state.config.number("LAB_BEAT_SECONDS", 900)
    while True:
        time.sleep(pause)
        try:
            state.broker.lpush("plugin", json.dumps({"task": "upgrade"}))
        except redis.RedisError as error:
            print(f"beat: {error}", flush=True)  # noqa: T201


def plugin_daemon(config: Config, host: str, port: int, debugging: int) -> int:
    """Serve the inner API, and the port for debugging."""
    daemon = PluginDaemon(config)
    threading.Thread(target=Debugging(host, debugging).serve_forever, daemon=True).start()
    Server(host, port, daemon.router(), {}).serve_forever()
    return 0


def flask(state: State, words: list[str]) -> int:
    """``flask upgrade-db`` and ``flask reset-password``."""
    _ = state.secret_key
    parser = argparse.ArgumentParser(prog="flask")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("upgrade-db")
    reset = commands.add_parser("reset-password")
    for name in ("--email", "--new-password", "--password-confirm"):
        reset.add_argument(name, required=True)
    given = parser.parse_args(words)
    if given.command == "upgrade-db":
        return migrations.upgrade(state)
    print(reset_password(state, given.email, given.new_password, given.password_confirm))  # noqa: T201
    return 0


def celery(state: State) -> int:
    """``celery inspect ping`` on this container's worker."""
    if state.broker.get(f"celery-worker:{socket.gethostname()}"):
        print("->  celery@" + socket.gethostname() + ": OK\n        pong")  # noqa: T201
        return 0
    print("Error: No nodes replied within time constraint", file=sys.stderr)  # noqa: T201
    return 69


def main() -> int:
    """Run a mode."""
    parser = argparse.ArgumentParser(prog="dify", description=__doc__)
    parser.add_argument("mode")
    parser.add_argument("--host", default=ALL)
    parser.add_argument("--port", type=int, default=0, help="by default the image's own")
    parser.add_argument("--debugging-port", type=int, default=5003)
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    # The first process of a container ignores it otherwise.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    config = Config.read()
    state = State(config)
    modes = {
        "api": lambda: api(state, given.host, given.port or 5001),
        "worker": lambda: worker(state),
        "beat": lambda: beat(state),
        "plugin-daemon": lambda: plugin_daemon(
            config, given.host, given.port or 5002, given.debugging_port
        ),
        "flask": lambda: flask(state, given.words),
        "celery": lambda: celery(state),
        "open-webui": lambda: open_webui.serve(config, given.host, given.port),
    }
    if given.mode in modes:
        return modes[given.mode]()
    return small.serve(given.mode, config, given.host, given.port)


if __name__ == "__main__":
    sys.exit(main())
