"""Docker and Compose as far as `dify_stack.py` asks them: containers, their states, a database.

In this process: each command of its own would take most of the tests' time.
"""

# ruff: noqa: T201, C901, PLR0911, PLR0912 - a program that answers, and a table of its answers

import json
import sys
import time
from pathlib import Path
from typing import Any

SERVICES = ("api", "db_postgres", "nginx", "redis")


def main(state: dict[str, Any], words: list[str], stdin: str = "") -> int:
    """Do what the words say; the exit status."""
    state["calls"].append(" ".join(words))
    containers = state["containers"]
    match words:
        case ["compose", "--project-name", _, *rest]:
            return compose(state, options_off(rest))
        case ["ps", *rest]:
            wanted = [w.removeprefix("status=") for w in rest if w.startswith("status=")]
            once = "label=com.docker.compose.oneoff=False" not in rest
            shown = [
                c["Id"]
                for n, c in containers.items()
                if (not wanted or c["State"]["Status"] in wanted) and (once or n != "run")
            ]
            print("\n".join(shown))
        case ["inspect", *ids]:
            print(json.dumps([c for c in containers.values() if c["Id"] in ids]))
        case ["image", "inspect", "--format", _, image]:
            if image not in state["images"]:
                return said(f"No such image: {image}")
            print(state.get("image_size", 1000))
        case ["info", *_]:
            print("/")
        case ["image", "inspect", image]:
            return 0 if image in state["images"] else 1
        case ["pull", "--quiet", image]:
            if image.endswith(":9.9.9"):
                return said(f"{image}: not found")
            state["images"].append(image)
        case ["pause" | "unpause" as verb, *ids]:
            if not ids:
                return said(f"docker {verb} requires at least 1 argument")
            for container in containers.values():
                if container["Id"] in ids:
                    container["State"]["Status"] = "paused" if verb == "pause" else "running"
        case ["start", *ids]:
            for container in containers.values():
                if container["Id"] in ids:
                    if state.get("address_missing") and "nginx" in container["Id"]:
                        return said("cannot assign requested address")
                    container["State"] = running(state)
        case ["volume", "ls", *_]:
            pass
        case ["exec", "--interactive", *_]:
            state["database"] = stdin
        case ["exec", _, "sh", "-c", command, *_] if "pg_dump" in command:
            if state.get("full"):
                return said("No space left on device")
            print(state["database"], end="")
        case _:
            return said(f"unknown: {words}")
    return 0


def compose(state: dict[str, Any], words: list[str]) -> int:
    """Do what Compose is told, in a release's folder."""
    containers, version = state["containers"], Path.cwd().name
    file = Path("docker-compose.yaml")
    if words[0] != "down" and not file.exists():
        return said("no configuration file provided: not found")
    images = {name: f"dify/{name}:{version}" for name in SERVICES}
    match words:
        case ["config", "--quiet"]:
            pass
        case ["config", "--format", "json"]:
            values = dict(
                line.split("=", 1) for line in Path(".env").read_text().splitlines() if "=" in line
            )
            services = {n: {"image": image, "environment": values} for n, image in images.items()}
            print(json.dumps({"services": services}))
        case ["up", "--detach", "--no-recreate", "db_postgres"]:
            start(state, {"db_postgres": images["db_postgres"]}, recreate=False)
        case ["up", *_]:
            start(state, images)
            for name in state["unwell"]:
                containers[name]["State"]["Health"] = {"Status": "unhealthy", "FailingStreak": 3}
            if state["unwell"]:
                return said(
                    f"dependency failed to start: container {state['unwell'][0]} is unhealthy"
                )
            if version not in state["database"]:
                state["database"] += f" {version}"
        case ["down", *_]:
            containers.clear()
        case ["stop", name]:
            if name in containers:
                containers[name]["State"]["Status"] = "exited"
        case ["restart", name]:
            containers[name]["State"] = running(state)
        case ["exec", "-T", name, *_]:
            if containers.get(name, {}).get("State", {}).get("Status") != "running":
                return said(f'service "{name}" is not running')
            answers = {"redis": "OK", "db_postgres": "dify"}
            if name == "api":
                turns = state["migrating"]
                state["migrating"] = max(turns - 1, 0)
                word = "skipped" if turns else "successful!"
                print(f"Database migration {word}")
            else:
                print(answers[name])
        case ["logs", *_, name]:
            print(f"the log of {name}")
        case _:
            return said(f"unknown: compose {words}")
    return 0


def start(state: dict[str, Any], images: dict[str, str], *, recreate: bool = True) -> None:
    """Have a running container of each image."""
    containers = state["containers"]
    for name, image in images.items():
        there = containers.get(name)
        if there is None or (recreate and there["Config"]["Image"] != image):
            labels = {"com.docker.compose.service": name}
            containers[name] = there = {
                "Id": f"{name}-{time.time_ns()}", "RestartCount": 0, "Created": now(),
                "Config": {"Image": image, "Labels": labels}, "State": {"Status": "created"},
            }  # fmt: skip
        if there["State"]["Status"] != "running":
            there["State"] = running(state)


def running(state: dict[str, Any]) -> dict[str, Any]:
    """What is said of a container that has just been started, whose process is in `proc`."""
    state["pid"] = pid = state.get("pid", 100) + 1
    folder = Path(state["proc"]) / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} (a (b) c) S {'0 ' * 18}{pid} 0\n")
    return {"Status": "running", "Pid": pid}


def now() -> str:
    """The time as Docker writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z"


def options_off(words: list[str]) -> list[str]:
    """Without the files that Compose is given."""
    while words[0] == "--file":
        words = words[2:]
    return words


def said(text: str) -> int:
    """Say why not."""
    print(text, file=sys.stderr)
    return 1
