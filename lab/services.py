"""The lab's upstream server, and its registry: built beside the boot, run in its namespace.

What it serves and how is lab/upstream's own business; here it is only kept running.
"""

import argparse
import contextlib
import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab import network, processes, registry
from lab.state import CACHE, Lab, LabError, read_json, say, timed, write_json
from lab.upstream import Upstream, driver, prepare, toolkit

PORT = 8080
UNIT, BUILD, REGISTRY = "upstream", "upstream-build", "registry"


@contextlib.contextmanager
def preparing(lab: Lab, release: Path | None, *, dify: bool = False) -> Iterator[Future[Upstream]]:
    """Build what the upstream serves, from the cache where it can, beside what the caller does."""
    with ThreadPoolExecutor(max_workers=1) as background:
        try:
            yield background.submit(_prepare, lab, release, dify)
        except BaseException:
            processes.kill(processes.group(lab, BUILD))  # or its failure would wait for the build
            raise


def _prepare(lab: Lab, release: Path | None, dify: bool) -> Upstream:
    """Build in a process of the lab's: when we are killed, the next command ends the build too."""
    begun = time.monotonic()
    if dify:
        say("registry: making Dify's images, where they are not there yet (a minute or two, once)")
    processes.kill(processes.group(lab, BUILD))
    lab.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    built = lab.root / "built.json"
    options = [*(["--release", str(release.resolve())] if release else []), "--write", str(built)]
    options += ["--dify"] if dify else []
    log = lab.root / "build.log"
    log.unlink(missing_ok=True)
    if processes.call(lab, BUILD, [sys.executable, "-m", "lab.services", *options], log):
        raise LabError(f"The upstream could not be built: {log.read_text().strip()[-2000:]}")
    record = read_json(built)
    upstream = Upstream(Path(record["root"]), record["ollama_version"], record["ollama_sha256"])
    seconds = time.monotonic() - begun
    say(f"upstream: Ollama {upstream.ollama_version} is there to serve ({seconds:.1f} s)")
    return upstream


def main() -> None:
    """Build the upstream and write what it is: the process that _prepare() starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--release", type=Path)
    parser.add_argument("--dify", action="store_true")
    parser.add_argument("--write", type=Path, required=True)
    options = parser.parse_args()
    try:
        built = prepare(CACHE, options.release)
        images = registry.prepare(CACHE) if options.dify else None
    except LabError as error:
        sys.exit(error.message)
    except (OSError, RuntimeError) as error:
        sys.exit(str(error))
    record = {**asdict(built), "root": str(built.root)}
    write_json(options.write, record | {"registry": str(images) if images else None})


def up(lab: Lab, upstream: Upstream) -> None:
    """Serve `upstream`, anew when what is served or the server's own code has changed.

    And the registry, where one was prepared.
    """
    _registry_up(lab)
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
        _wait(lab, UNIT, PORT, log)


def _registry_up(lab: Lab) -> None:
    store = lab.read("built").get("registry")
    if not store or (lab.read("registry").get("store") == store and _listens(lab, registry.PORT)):
        return
    processes.kill(processes.group(lab, REGISTRY))
    lab.write("registry", {"store": store})
    listen = f"{lab.address(network.UPSTREAM)}:{registry.PORT}"
    command = registry.serving(Path(store), listen, lab.root)
    log = lab.root / "registry.log"
    with timed(f"registry: serving on {listen}"):
        processes.start(lab, REGISTRY, [*network.inside(lab), *command], log=log)
        _wait(lab, REGISTRY, registry.PORT, log)


def state(lab: Lab) -> str:
    """Return `up`, or that it is not."""
    return "up" if _listens(lab, PORT) else "not running"


def registry_state(lab: Lab) -> str:
    """Return `up`, or that it is not."""
    return "up" if _listens(lab, registry.PORT) else "not running"


def _listens(lab: Lab, port: int) -> bool:
    try:
        with socket.create_connection((lab.address(network.UPSTREAM), port), timeout=1):
            return True
    except OSError:
        return False


def describe(lab: Lab) -> dict[str, Any]:
    """Return what the inventory needs to know of the upstream."""
    record = lab.read("upstream")
    drivers = Path(record.get("root", "/nonexistent")) / driver.PATH / "fingerprint"
    dify = Path(record.get("root", "/nonexistent")) / "dify.json"
    toolkits = Path(record.get("root", "/nonexistent")) / toolkit.PATH / "fingerprint"
    return {
        "url": f"http://upstream.lab:{PORT}",
        "address": lab.address(network.UPSTREAM),
        "ollama_version": record.get("ollama_version"),
        "ollama_sha256": record.get("ollama_sha256"),
        "driver_fingerprint": drivers.read_text() if drivers.exists() else None,
        "toolkit_fingerprint": toolkits.read_text() if toolkits.exists() else None,
        "dify": read_json(dify),
        **_describe_registry(lab),
    }


def _describe_registry(lab: Lab) -> dict[str, Any]:
    """Where the registry is, and the digest of each image in it by the compose file's name."""
    store = lab.read("registry").get("store")
    if not store:
        return {}
    url = f"http://upstream.lab:{registry.PORT}"
    return {"registry": url, "images": read_json(Path(store) / registry.RECORD)}


def _code() -> str:
    digest = hashlib.sha256()
    for file in sorted((Path(__file__).parent / "upstream").glob("**/*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _wait(lab: Lab, unit: str, port: int, log: Path) -> None:
    end = time.monotonic() + 20
    while not _listens(lab, port):
        if time.monotonic() > end or not processes.members(processes.group(lab, unit)):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise LabError(f"The {unit} does not answer. The end of its log:\n{tail}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
