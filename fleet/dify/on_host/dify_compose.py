"""A release of Dify in its working copy: its files with our values, and Compose in it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from common import ProgramError, run, write
from dify_health import DAEMON, Services

# They call what is outside: the marketplace, and Python's index.
PROXIED = ("api", "worker", "worker_beat", DAEMON)
_EXACT_TAG = re.compile(r"\d+\.\d+\.\d+")
_CA_IN_CONTAINER = "/etc/llm-fleet-ca.pem"


class Release:
    """The working copy of one version, and Compose in it."""

    def __init__(self, config: dict[str, Any], version: str) -> None:
        self.config, self.version = config, version
        self.root = Path(config["root"])
        self.directory = self.root / "releases" / version

    # -- files

    def prepare(self) -> None:
        """Have the working copy, our values and our override; Compose itself judges them."""
        self._copy()
        (self.root / "volumes").mkdir(mode=0o755, exist_ok=True)
        self._seed_volumes()
        if self.config["ca"]:
            write(self._bundle(), self._bundle_text(), 0o644)
        write(self.directory / ".env", self.env_text())
        staged = self.directory / ".override.yaml"
        write(staged, self.override_text())
        self._compose_with(staged, "config", "--quiet")
        staged.rename(self._override())

    def is_prepared(self) -> bool:
        """Whether every file is what `prepare` would write."""
        try:
            return (
                (self.directory / ".env").read_text() == self.env_text()
                and self._override().read_text() == self.override_text()
                and (not self.config["ca"] or self._bundle().read_text() == self._bundle_text())
            )
        except FileNotFoundError:
            return False

    def _copy(self) -> None:
        """The pristine `docker/` of the release, complete or not at all."""
        if self.directory.exists():
            return
        new = self.directory.with_name(f"{self.version}.new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(self._pristine(), new, symlinks=True)
        shutil.rmtree(new / "volumes", ignore_errors=True)
        (new / "volumes").symlink_to(self.root / "volumes")
        new.chmod(0o700)
        new.rename(self.directory)

    def _pristine(self) -> Path:
        """`docker/` of the unpacked tarball, whatever folder the tarball has around it."""
        unpacked = Path(self.config["pristine"]) / self.version
        found = [*unpacked.glob("docker"), *unpacked.glob("*/docker")]
        if len(found) != 1 or not (found[0] / "docker-compose.yaml").is_file():
            raise ProgramError(
                f"{unpacked}: no docker/docker-compose.yaml in the release's tarball"
            )
        return found[0]

    def _seed_volumes(self) -> None:
        """Files that the release brings for its volumes, where there is none yet."""
        seeds = self._pristine() / "volumes"
        if seeds.is_dir():
            seed(seeds, self.root / "volumes")

    def env_text(self) -> str:
        """The release's `.env.example` with our values in the places of its own."""
        ours = dict(read_env(Path(self.config["values"]).read_text()))
        lines, placed = [], set()
        for line in (self._pristine() / ".env.example").read_text().splitlines():
            name = line.split("=", 1)[0].strip()
            # Each of them: in a file with a name twice, the last one counts.
            lines.append(f"{name}={ours[name]}" if name in ours else line)
            placed.add(name)
        rest = [f"{name}={value}" for name, value in ours.items() if name not in placed]
        return "\n".join([*lines, "# Added by llm-fleet.", *rest, ""])

    def _override(self) -> Path:
        return self.directory / "docker-compose.override.yaml"

    def _bundle(self) -> Path:
        return self.root / "ca-bundle.pem"

    def _bundle_text(self) -> str:
        system = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
        return system + Path(self.config["ca"]).read_text()

    def override_text(self) -> str:
        """Our changes to the release's compose file, which stays as it is."""
        services = self.services(override=False)
        ours = {name: self._service_override(name, services) for name in services}
        network = self.config["network"]
        document = {
            "name": self.config["project"],
            "services": {name: value for name, value in ours.items() if value},
            "networks": {
                "default": {
                    "driver_opts": {"com.docker.network.bridge.name": network["bridge"]},
                    "ipam": {
                        "config": [{"subnet": network["subnet"], "ip_range": network["ip_range"]}]
                    },
                }
            },
        }
        return "# Managed by llm-fleet.\n" + to_yaml(document)

    def _service_override(self, name: str, services: Services) -> dict[str, Any]:
        service = services[name]
        ours: dict[str, Any] = {}
        digest = self.config["images"].get(service["image"])
        if digest:
            ours["image"] = f"{service['image']}@{digest}"
        published = self.config["publish"].get(name, [])
        if service.get("ports") or published:
            ours["ports"] = Tagged("!override" if published else "!reset", published)
        environment: dict[str, str] = {}
        if self.config["proxy"] and name in PROXIED:
            environment |= self._proxy(services)
        if name == DAEMON:
            ours["networks"] = {"default": {"ipv4_address": self.config["network"]["daemon"]}}
            if self.config["ca"]:
                environment["REQUESTS_CA_BUNDLE"] = _CA_IN_CONTAINER
                # The file is replaced: a container that runs keeps the one it began with.
                text = self._bundle_text().encode()
                environment["LLM_FLEET_CA_SHA256"] = hashlib.sha256(text).hexdigest()
                ours["volumes"] = [f"{self._bundle()}:{_CA_IN_CONTAINER}:ro"]
        if environment:
            ours["environment"] = environment
        if held := _held_outer(service, services):
            ours["volumes"] = [*ours.get("volumes", []), *held]
        return ours

    def _proxy(self, services: Services) -> dict[str, str]:
        proxy = self.config["proxy"]
        # Without the services' own names, Dify's parts would look for each other outside.
        direct = ",".join(["localhost", "127.0.0.1", *sorted(services), *proxy["direct"]])
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        return dict.fromkeys(names, proxy["url"]) | {"NO_PROXY": direct, "no_proxy": direct}

    # -- Compose

    def compose(self, *words: str, stdin: IO[bytes] | None = None) -> str:
        """Compose with the release's file and our override."""
        return self._compose_with(self._override(), *words, stdin=stdin)

    def _compose_with(
        self, override: Path | None, *words: str, stdin: IO[bytes] | None = None
    ) -> str:
        files = ["--file", "docker-compose.yaml"]
        files += ["--file", str(override)] if override else []
        # Its .env must be what is in the release: nothing of whoever runs this may shine through.
        command = ["env", "-i", f"PATH={os.environ['PATH']}", "HOME=/root"]
        return run(*command, "docker", "compose", "--project-name", self.config["project"],
                   *files, *words, cwd=self.directory, stdin=stdin)  # fmt: skip

    def services(self, *, override: bool = True) -> Services:
        """Service to its configuration, of the profiles in force."""
        path = self._override() if override else None
        text = self._compose_with(path, "config", "--format", "json")
        services: Services = json.loads(text)["services"]
        return services

    def containers(self) -> Services:
        """Service to what `docker inspect` says of its container, of this project."""
        label = f"label=com.docker.compose.project={self.config['project']}"
        # What somebody ran by hand has its service's label too.
        lasting = "label=com.docker.compose.oneoff=False"
        ids = run(
            "docker", "ps", "--all", "--quiet", "--filter", label, "--filter", lasting
        ).split()
        if not ids:
            return {}
        listed = json.loads(run("docker", "inspect", *ids))
        return {item["Config"]["Labels"]["com.docker.compose.service"]: item for item in listed}


def _held_outer(service: dict[str, Any], services: Services) -> list[dict[str, Any]]:
    """Read-only mounts for those folders of a service in which another mount begins.

    Whoever writes in the outer one could put a link in the inner one's place, and Docker would
    show a container what it leads to at the next start: the host's root, say.
    """
    sources = {
        PurePosixPath(mount["source"])
        for other in services.values()
        for mount in other.get("volumes") or []
        if mount["type"] == "bind"
    }
    return [
        mount | {"read_only": True}
        for mount in service.get("volumes") or []
        if mount["type"] == "bind"
        and any(PurePosixPath(mount["source"]) in source.parents for source in sources)
    ]


def seed(seeds: Path, target: Path) -> None:
    """Have copies of the files below `seeds` below `target`, where there is nothing of their name.

    Containers write there: a link in the place of a folder or a file is left as it is, and nothing
    is written where it leads. `target` itself may be one: what is above it is root's alone.
    """
    place = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _seed(seeds, place)
    finally:
        os.close(place)


def _seed(seeds: Path, place: int) -> None:
    for path in sorted(seeds.iterdir()):
        if path.is_dir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.name, 0o755, dir_fd=place)
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                inner = os.open(path.name, flags, dir_fd=place)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            try:
                _seed(path, inner)
            finally:
                os.close(inner)
            continue
        with contextlib.suppress(FileExistsError):
            new = os.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=place)
            with os.fdopen(new, "wb") as file:
                file.write(path.read_bytes())
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)


class Tagged:
    """A value with a YAML tag of Compose's before it."""

    def __init__(self, tag: str, value: Any) -> None:
        self.tag, self.value = tag, value


def to_yaml(value: dict[str, Any], indent: int = 0) -> str:
    """Block YAML of dicts; lists and scalars as JSON, which YAML reads too."""
    pad = "  " * indent
    lines = []
    for key, item in value.items():
        if isinstance(item, Tagged):
            lines.append(f"{pad}{key}: {item.tag} {json.dumps(item.value)}\n")
        elif isinstance(item, dict):
            lines.append(f"{pad}{key}:\n{to_yaml(item, indent + 1)}")
        else:
            lines.append(f"{pad}{key}: {json.dumps(item)}\n")
    return "".join(lines)


def read_env(text: str) -> Iterator[tuple[str, str]]:
    """The assignments of a dotenv file, in order."""
    for line in text.splitlines():
        name, sep, value = line.partition("=")
        if sep and not line.lstrip().startswith("#"):
            yield name.strip(), value.strip()


def image_problem(services: Services) -> str | None:
    """The images that could be another one tomorrow, or None."""
    loose = sorted(
        {
            service["image"]
            for service in services.values()
            if "@sha256:" not in service["image"]
            and not _EXACT_TAG.search(service["image"].rpartition(":")[2])
        }
    )
    if not loose:
        return None
    lines = ", ".join(f'"{name}": "sha256:..."' for name in loose)
    return (
        f"dify_images: these tags are moved by their publishers: declare {lines}; "
        "`docker buildx imagetools inspect NAME` shows a digest"
    )
