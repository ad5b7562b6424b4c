"""Judges containers by what Docker says of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ProgramError

DATABASE = "db_postgres"
DAEMON = "plugin_daemon"
# These names nginx looks up once, when it starts; that of api_websocket at each request.
NGINX, BEHIND = "nginx", ("api", "web", DAEMON)

PROC = Path("/proc")

Services = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Trouble:
    """Why a service is not what it should be; `passes` by itself, as after every start."""

    service: str
    what: str
    passes: bool = False

    def __str__(self) -> str:
        return f"{self.service}: {self.what}"


def container_trouble(
    name: str, service: dict[str, Any], container: dict[str, Any] | None, started: list[str] | None
) -> Trouble | None:
    """Why a service's container is not what it should be; None when it is."""
    if container is None:
        return Trouble(name, "no container")
    if started != identity(service, container):
        return Trouble(name, "declared in another way than it was started")
    trouble = state_trouble(name, service, container["State"])
    # So it is after every start, and after the pause of a backup: nothing to be done about it.
    return None if trouble and trouble.passes else trouble


def identity(service: dict[str, Any], container: dict[str, Any]) -> list[str]:
    """What tells a container apart: its id, and a hash of what it was started from.

    Compose's own label is no help: `config --hash` gives another one than `up` wrote.
    """
    text = json.dumps(service, sort_keys=True)
    return [container["Id"], hashlib.sha256(text.encode()).hexdigest()]


def state_trouble(name: str, service: dict[str, Any], state: dict[str, Any]) -> Trouble | None:
    """Why a container is not well; a one-shot one has ended well."""
    if state["Status"] == "exited" and service.get("restart") == "no":
        return None if state["ExitCode"] == 0 else Trouble(name, f"ended with {state['ExitCode']}")
    if state["Status"] != "running":
        return Trouble(name, state["Status"])
    health = state.get("Health", {}).get("Status", "healthy")
    if health == "unhealthy" and not state["Health"].get("FailingStreak", 1):
        # What Docker says of a container after a pause, until it has been probed again.
        health = "starting"
    if health in ("healthy", "none"):
        return None
    return Trouble(name, health, passes=health == "starting")


def troubles_of(services: Services, containers: Services) -> dict[str, Trouble]:
    """Service to why it is not well; one without a container is missing."""
    missing = {"State": {"Status": "missing"}}
    looked = {
        name: state_trouble(name, service, containers.get(name, missing)["State"])
        for name, service in services.items()
    }
    return {name: trouble for name, trouble in looked.items() if trouble}


def stale_nginx(containers: Services) -> Trouble | None:
    """nginx keeps the addresses that its peers had when it started, and answers 502."""
    began = {n: began_at(containers[n]) for n in (NGINX, *BEHIND) if n in containers}
    own = began.get(NGINX)
    newer = [n for n in BEHIND if own is not None and (began.get(n) or 0) > own]
    return Trouble(NGINX, f"started before {', '.join(newer)}") if newer else None


def crashes(container: dict[str, Any] | None) -> int:
    """How often Docker has started a container again."""
    return int(container["RestartCount"]) if container else 0


def began_at(container: dict[str, Any]) -> int | None:
    """When a container's process began, in the kernel's ticks since the boot; None without one.

    Docker's own word for it is a time of day, and clocks are set.

    Raises:
        ProgramError: it has ended just now, or is hidden from us.
    """
    if not (process := container["State"].get("Pid")):
        return None
    try:
        text = (PROC / str(process) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProgramError(
            f"process {process} of {container['Id'][:12]} is not to be seen"
        ) from None
    # proc_pid_stat(5): the 22nd field; the second, in parentheses, may have spaces in it.
    return int(text.rpartition(")")[2].split()[19])
