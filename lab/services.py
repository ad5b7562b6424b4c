"""The lab's upstream server: built beside the boot, run in the lab's namespace.

What it serves and how is lab/upstream's own business; here it is only kept running.
"""

import hashlib
import importlib
import socket
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from lab import network, processes
from lab.state import CACHE, Lab, LabError, say, timed

PORT = 8080
UNIT = "upstream"


class Upstream(Protocol):
    """What lab.upstream.prepare() returns."""

    root: Path
    ollama_version: str
    ollama_sha256: str


def prepare_upstream(release: Path | None) -> Upstream | None:
    """Build what the upstream serves, from the cache where it can."""
    prepare = getattr(importlib.import_module("lab.upstream"), "prepare", None)
    if prepare is None:
        say("upstream: lab.upstream has no prepare() yet, nothing is served")
        return None
    begun = time.monotonic()
    built: Upstream = prepare(CACHE, release)
    say(f"upstream: Ollama {built.ollama_version} ready ({time.monotonic() - begun:.1f} s)")
    return built


def up(lab: Lab, upstream: Upstream | None) -> None:
    """Serve `upstream`, anew when what is served or the server's own code has changed."""
    if upstream is None:
        return
    record = {
        "root": str(upstream.root),
        "ollama_version": upstream.ollama_version,
        "ollama_sha256": upstream.ollama_sha256,
        "code": _code(),
    }
    if lab.read("upstream") == record and state(lab) == "up":
        return
    processes.kill(processes.group(lab, UNIT))
    lab.write("upstream", record)
    listen = f"{lab.address(network.UPSTREAM)}:{PORT}"
    server = [
        sys.executable,
        "-m",
        "lab.upstream",
        "--root",
        str(upstream.root),
        "--listen",
        listen,
    ]
    log = lab.root / "upstream.log"
    with timed(f"upstream: serving on {listen}"):
        processes.start(lab, UNIT, [*network.inside(lab), *server], log=log)
        _wait(lab, log)


def state(lab: Lab) -> str:
    """Return `up`, or that it is not."""
    try:
        with socket.create_connection((lab.address(network.UPSTREAM), PORT), timeout=1):
            return "up"
    except OSError:
        return "not running"


def describe(lab: Lab) -> dict[str, Any]:
    """Return what the inventory needs to know of the upstream."""
    record = lab.read("upstream")
    return {
        "url": f"http://upstream.lab:{PORT}",
        "address": lab.address(network.UPSTREAM),
        "ollama_version": record.get("ollama_version"),
        "ollama_sha256": record.get("ollama_sha256"),
    }


def _code() -> str:
    digest = hashlib.sha256()
    for file in sorted((Path(__file__).parent / "upstream").glob("**/*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _wait(lab: Lab, log: Path) -> None:
    end = time.monotonic() + 20
    while state(lab) != "up":
        if time.monotonic() > end or not processes.members(processes.group(lab, UNIT)):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise LabError(f"The upstream server does not answer. The end of its log:\n{tail}")
        time.sleep(0.05)
