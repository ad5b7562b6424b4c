"""Dify's own compose stack on a host: kept as declared, upgraded, backed up and restored.

usage: dify_stack.py check|converge|setup|settle|backup|unpause CONFIG

`check` changes nothing and prints {"pending": [reason, ...]}; `converge` does what `check` would
list and waits until every service is well; `setup` is `dify_client.py apply`, at a time when
nothing else changes Dify; `settle` has what a boot left down up again, as it is; `backup` writes
an archive, with `--due` only when the newest is old; `unpause` undoes what a killed backup left.
Runs as root, standard library only.

Layout under CONFIG's `root`: `releases/<version>/` is a working copy of the pristine release with
our `.env` and `docker-compose.override.yaml`, `volumes/` is the state that every version shares,
`state.json` says which version runs and what was under way when the host was cut off.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import dify_client

DATABASE = "db_postgres"
DAEMON = "plugin_daemon"
# These names the door looks up once, when it starts; that of api_websocket at each request.
DOOR, BEHIND = "nginx", ("api", "web", DAEMON)
# They call what is outside: the marketplace, and Python's index.
PROXIED = ("api", "worker", "worker_beat", DAEMON)
Services = dict[str, dict[str, Any]]
_EXACT_TAG = re.compile(r"\d+\.\d+\.\d+")
# Many a service ends a few times until what it needs is up.
_CRASHES, _CRASHING = 4, 60.0
# A container that Docker leaves alone.
_DOWN = ("created", "exited", "dead")
_LOG_LINES = "12"
# The owner of Dify's own processes in their containers.
_STORAGE_OWNER = "1001:1001"
_CA_IN_CONTAINER = "/etc/llm-fleet-ca.pem"


class StackError(Exception):
    """What went wrong, worded for the operator."""


def say(text: str) -> None:
    """A line of progress, at once; the deploy shows the newest."""
    print(text, flush=True)  # noqa: T201 - the journal is where it goes


def run(*words: str, cwd: Path | None = None, stdin: IO[bytes] | None = None) -> str:
    """Standard output of a command, as text. Raises StackError with what it said."""
    done = subprocess.run(words, cwd=cwd, stdin=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-6:]
        raise StackError(f"{' '.join(words[:6])}: exit {done.returncode}: {' | '.join(said)}")
    return done.stdout


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Have `text` in the file `path`, whole or not at all, for its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).chmod(mode)
    Path(temporary).rename(path)


def sha256(path: Path) -> str:
    """SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
            raise StackError(f"{unpacked}: no docker/docker-compose.yaml in the release's tarball")
        return found[0]

    def _seed_volumes(self) -> None:
        """Files that the release brings for its volumes, where there is none yet."""
        seeds = self._pristine() / "volumes"
        for path in sorted(seeds.rglob("*")) if seeds.is_dir() else ():
            target = self.root / "volumes" / path.relative_to(seeds)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif not target.exists():
                shutil.copy2(path, target)

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


def password_problem(services: Services, known: list[str]) -> str | None:
    """The services that would run with a password of the release's own, or None."""
    told = {
        name: json.dumps([service.get("environment"), service.get("command")])
        for name, service in services.items()
    }
    public = sorted(name for name, text in told.items() if any(word in text for word in known))
    if not public:
        return None
    return (
        f"{', '.join(public)}: would run with a password that Dify's release prints for everybody: "
        "this project does not know it yet, so this release is not for it"
    )


def container_problem(
    name: str, service: dict[str, Any], container: dict[str, Any] | None, started: list[str] | None
) -> str | None:
    """Why a service's container is not what it should be; None when it is."""
    if container is None:
        return f"{name}: no container"
    if started != identity(service, container):
        return f"{name}: declared in another way than it was started"
    problem = state_problem(name, service, container["State"])
    # So it is after every start, and after the pause of a backup: nothing to be done about it.
    return None if problem == f"{name}: starting" else problem


def identity(service: dict[str, Any], container: dict[str, Any]) -> list[str]:
    """What tells a container apart: its id, and a hash of what it was started from.

    Compose's own label is no help: `config --hash` gives another one than `up` wrote.
    """
    text = json.dumps(service, sort_keys=True)
    return [container["Id"], hashlib.sha256(text.encode()).hexdigest()]


def state_problem(name: str, service: dict[str, Any], state: dict[str, Any]) -> str | None:
    """Why a container is not well; a one-shot one has ended well."""
    if state["Status"] == "exited" and service.get("restart") == "no":
        return None if state["ExitCode"] == 0 else f"{name}: ended with {state['ExitCode']}"
    if state["Status"] != "running":
        return f"{name}: {state['Status']}"
    health = state.get("Health", {}).get("Status", "healthy")
    if health == "unhealthy" and not state["Health"].get("FailingStreak", 1):
        # What Docker says of a container after a pause, until it has been probed again.
        health = "starting"
    return None if health in ("healthy", "none") else f"{name}: {health}"


class Stack:
    """The declared release on this host."""

    def __init__(self, config: dict[str, Any], path: str) -> None:
        self.config, self.path = config, path
        self.root = Path(config["root"])
        self.state = self._read_state()
        self.release = Release(config, config["version"])

    def _read_state(self) -> Any:
        try:
            return json.loads((self.root / "state.json").read_text())
        except FileNotFoundError:
            return {}

    def _keep(self, **state: Any) -> None:
        self.state = state
        write(self.root / "state.json", json.dumps(state))

    # -- looking

    def pending(self) -> list[str]:
        """Every reason to change something."""
        if Path(self.config["restore"]).exists():
            return ["a backup is to be restored"]
        if self.state.get("under_way"):
            return [f"{self.state['under_way']} was cut off"]
        now = self.state.get("version")
        if now != self.config["version"]:
            return [f"Dify {now or 'is not installed'}, declared is {self.config['version']}"]
        if self.state.get("installing"):
            return ["the first installation was cut off"]
        if not self.release.is_prepared():
            return ["settings have changed"]
        return self.container_problems()

    def container_problems(self) -> list[str]:
        """Why the containers are not the declared ones, or not well."""
        services, containers = self.release.services(), self.release.containers()
        started = self.state.get("started", {})
        problems = [
            container_problem(name, service, containers.get(name), started.get(name))
            for name, service in services.items()
        ]
        problems += [f"{name}: not declared" for name in sorted(set(containers) - set(services))]
        problems += [self._stale_door(containers)]
        return [problem for problem in problems if problem]

    @staticmethod
    def _stale_door(containers: Services) -> str | None:
        """nginx keeps the addresses that its peers had when it started, and answers 502."""
        door = containers.get(DOOR)
        newer = [
            name
            for name in BEHIND
            if door and name in containers
            and moment(containers[name]["State"]["StartedAt"]) > moment(door["State"]["StartedAt"])
        ]  # fmt: skip
        return f"{DOOR}: started before {', '.join(newer)}" if newer else None

    # -- changing

    def converge(self) -> None:
        """Have the declared release up, from whatever state the host is in."""
        self.unpause()
        if Path(self.config["restore"]).exists():
            self.restore(Path(self.config["restore"]))
            Path(self.config["restore"]).unlink()
        now, target = self.state.get("version"), self.config["version"]
        if self.state.get("returning"):
            self._take_back("an earlier return was cut off")
        elif self.state.get("under_way") and self.state["to"] != target:
            self._take_back("the declared version is another again")
        if self.state.get("installing") and self.state["version"] != target:
            self._give_up()
        now = self.state.get("version")
        if now and now != target:
            self.upgrade(now, target)
            return
        self.release.prepare()
        self.bring_up(self.release)

    def bring_up(self, release: Release) -> None:
        """Start a prepared release, and wait until it is well."""
        say(f"starting Dify {release.version}")
        services = self._judged(release)
        self._pull(services)
        self.unpause()
        if not self.state:
            # From here on the version counts as installed: there may be a database of it.
            self._keep(version=release.version, installing=True)
        self._up(release, services)
        containers = release.containers()
        started = {n: identity(s, containers[n]) for n, s in services.items() if n in containers}
        self._keep(**{**self.state, "started": started})
        self._wait_well(release, services)
        self._wait_migrated(release)
        if self._stale_door(release.containers()):
            say("restarting nginx: what is behind it was made anew")
            release.compose("restart", DOOR)
        self._wait_answer(release)
        if self.state.get("installing"):
            self._keep(version=release.version, started=started)

    def _give_up(self) -> None:
        """Forget a first installation that never answered: any version may follow it."""
        say(f"Dify {self.state['version']} never answered: starting afresh")
        self._down()
        volumes = self.root / "volumes"
        if volumes.exists():
            volumes.rename(self.root / f"volumes.before-{int(time.time())}")
        self._keep()

    def _judged(self, release: Release) -> Services:
        """The services of a prepared release. Raises StackError for those that may not run."""
        services = release.services()
        public = self.config["public_defaults"]
        if problem := image_problem(services) or password_problem(services, public):
            raise StackError(problem)
        return services

    def _up(self, release: Release, services: Services) -> None:
        try:
            release.compose("up", "--detach", "--remove-orphans", "--quiet-pull")
        except StackError:
            # One that others wait for did not become well; Compose says which, not why.
            containers = release.containers()
            self._show_logs(
                release,
                [
                    name
                    for name, service in services.items()
                    if name in containers
                    and containers[name]["State"]["Status"] != "created"
                    and state_problem(name, service, containers[name]["State"])
                ],
            )
            raise

    @staticmethod
    def _pull(services: Services) -> None:
        images = sorted({service["image"] for service in services.values()})
        for number, image in enumerate(images, 1):
            try:
                run("docker", "image", "inspect", image)
            except StackError:
                say(f"pulling image {number} of {len(images)}: {image}")
                run("docker", "pull", "--quiet", image)

    def _wait_well(self, release: Release, services: Services) -> None:
        begun = time.monotonic()
        deadline = begun + self.config["start_timeout"]
        before: dict[str, int] = {}
        shown = None
        while True:
            containers = release.containers()
            missing = {"State": {"Status": "missing"}}
            looked = {
                name: state_problem(name, service, containers.get(name, missing)["State"])
                for name, service in services.items()
            }
            problems = {name: problem for name, problem in looked.items() if problem}
            if not problems:
                return
            for name in services:
                before.setdefault(name, _crashes(containers.get(name)))
            crashed = [
                name
                for name in problems
                if _crashes(containers.get(name)) - before[name] >= _CRASHES
                and time.monotonic() - begun > _CRASHING
            ]
            if crashed or time.monotonic() > deadline:
                self._show_logs(release, crashed or sorted(problems))
                ends = [f"{name}: ends again and again" for name in crashed]
                raise StackError("; ".join(ends or sorted(problems.values())))
            text = "waiting for " + ", ".join(sorted(problems.values()))
            if text != shown:
                shown = text
                say(text)
            time.sleep(2)

    def _wait_migrated(self, release: Release) -> None:
        """Until no container migrates: those that find another at it serve the old schema."""
        deadline = time.monotonic() + self.config["start_timeout"]
        while "skipped" in release.compose("exec", "-T", "api", "flask", "upgrade-db"):
            if time.monotonic() > deadline:
                self._show_logs(release, ["api", "worker"])
                raise StackError("the database is still being migrated, or a dead one's lock is on")
            say("waiting for the database's migration")
            time.sleep(5)

    @staticmethod
    def _show_logs(release: Release, names: list[str]) -> None:
        for name in names[:3]:
            logs = release.compose("logs", "--no-color", "--tail", _LOG_LINES, name)
            say(f"--- the end of {name}'s log ---\n{logs.rstrip()}")

    def _client(self) -> Any:
        config = json.loads(Path(self.config["client"]).read_text())
        return dify_client.Dify(config)

    def _wait_answer(self, release: Release) -> None:
        say("waiting for Dify's API")
        try:
            self._client().wait_ready()
        except dify_client.DifyError as error:
            self._show_logs(release, [DOOR, "api"])
            raise StackError(str(error)) from None

    def set_up(self) -> None:
        """Have owner, plugin, models and apps as declared."""
        # Left by a killed backup.
        self.unpause()
        try:
            dify_client.apply(self._client())
        except (dify_client.DifyError, http.client.HTTPException) as error:
            raise StackError(str(error)) from None

    # -- after a boot

    def settle(self) -> list[str]:
        """Have the containers up again as they were; what is not well yet.

        Docker starts them in no order, and gives them other addresses than the door knows; one that
        is published at an address which came up late it leaves down for ever. What is declared is
        a deploy's business, and what was cut off too.
        """
        self.unpause()
        version = self.state.get("version")
        if not version or self.state.get("under_way") or self.state.get("installing"):
            return []
        release = Release(self.config, version)
        services, containers = release.services(), release.containers()
        there = {name: containers[name] for name in services if name in containers}
        looked = {n: state_problem(n, services[n], item["State"]) for n, item in there.items()}
        problems = {name: problem for name, problem in looked.items() if problem}
        down = [name for name in problems if there[name]["State"]["Status"] in _DOWN]
        if down:
            say(f"starting {', '.join(down)}")
            run("docker", "start", *(there[name]["Id"] for name in down))
        # Without waiting for probes: every page is a 502 until then.
        runs = all(problem == f"{name}: starting" for name, problem in problems.items())
        if runs and (stale := self._stale_door(containers)):
            say(f"restarting it: {stale}")
            release.compose("restart", DOOR)
        if not problems and self._client().setup_state() is None:
            problems["api"] = "Dify's API does not answer"
        return list(problems.values())

    # -- upgrades

    def upgrade(self, now: str, target: str) -> None:
        """From version `now` to `target`: proven by a chat, or back at the backup made before."""
        if numbers(target) < numbers(now):
            raise StackError(
                f"Dify {now} runs, and a database does not go back to {target}: declare {now}, or "
                "restore a backup of that version (docs/operating.md)"
            )
        resumed = bool(self.state.get("replaced"))
        if not resumed:
            self._make_ready(now, target)
        try:
            if not resumed:
                self._put_away(now, target)
            self._down()
            self.release.prepare()
            self.bring_up(self.release)
            self._prove()
        except Exception as error:
            # Whatever it was: somebody waits for a Dify that answers.
            aside = self._take_back(str(error))
            left = f"; what {target} made of the data is in {aside}" if aside else ""
            raise StackError(
                f"the upgrade to {target} failed and was taken back, {now} runs as before{left}: "
                f"{error}"
            ) from error
        self._keep(version=target, started=self.state["started"])
        say(f"Dify {target} answers")

    def _make_ready(self, now: str, target: str) -> None:
        """All that can fail while `now` still runs: the files, the images, and the proof itself."""
        self.release.prepare()
        self._pull(self._judged(self.release))
        try:
            if self.state.get("under_way"):
                # Cut off, perhaps with its door shut.
                self.bring_up(Release(self.config, now))
            self._prove()
        except Exception as error:
            raise StackError(
                f"no upgrade to {target}, as Dify {now} does not answer a chat now, so nothing "
                f"could be proven by one: {error}; deploy with dify_version = '{now}' first"
            ) from error
        fix = "make room: the data that a failed one leaves is put aside, not deleted"
        self._check_space(self.root, f"no upgrade to {target}", fix)

    def _put_away(self, now: str, target: str) -> None:
        """Take `now` down, with a backup of its very last state."""
        started = self.state.get("started", {})
        say(f"backing up {now} before the upgrade to {target}")
        self._keep(version=now, started=started, under_way="an upgrade", to=target)
        former = Release(self.config, now)
        self._start_database(former)
        # What is accepted after the backup would be lost with a return to it.
        former.compose("stop", DOOR)
        archive = self.backup()
        self._keep(**self.state, backup=str(archive))
        self._down()
        # Only from here on the backup is newer than all else there is of `now`.
        self._keep(**self.state, replaced=True)

    def _down(self) -> None:
        """Remove the project's containers, of whatever release; by their label, without files."""
        run("docker", "compose", "--project-name", self.config["project"],
            "down", "--remove-orphans", cwd=self.root)  # fmt: skip

    def _prove(self) -> None:
        client = self._client()
        if not all(client.keys.get(app["role"]) for app in client.config["apps"]):
            say("no sample app yet, so no chat proves this version")
            return
        say("asking the sample apps")
        dify_client.chat(client)

    def _take_back(self, reason: str) -> Path | None:
        """End an upgrade that is under way: the release before it runs, with what it had.

        Its backup is imported only when it had been replaced. What is on the disk instead is put
        aside: the door was open, so people may have worked with the new one. Gives where.
        """
        aside = None
        # Its own files are as they were: the settings of the new one are none of its business.
        former = Release(self.config, self.state["version"])
        say(f"returning to {former.version}: {reason}")
        if self.state.get("replaced"):
            # Cut off here, what is on the disk is of neither release.
            self._keep(**{**self.state, "returning": True})
            self._down()
            archive = Path(self.state["backup"])
            aside = self._aside(archive)
            self._import(archive, former, aside)
        # The backup is never imported twice: from here on there may be something to lose again.
        self._keep(version=former.version)
        self.bring_up(former)
        return aside

    # -- backups

    def refuse_backup(self) -> None:
        """Raise StackError where an archive would be of no version, or of two."""
        if self.state.get("under_way"):
            raise StackError(f"no backup now: {self.state['under_way']} was cut off; deploy first")
        if "version" not in self.state or self.state.get("installing"):
            raise StackError("no backup now: Dify is not installed yet; deploy first")

    def backup(self) -> Path:
        """Write an archive of all there is to lose; its path.

        Everything but the database is paused meanwhile, so that files and tables are of one moment.
        """
        release = Release(self.config, self.state["version"])
        directory = Path(self.config["backup"]["dir"])
        # One that is there may hold what is others': archives are root's alone by themselves.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for stale in directory.glob(".part-*"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        self._check_space(directory, "no backup", "make room, or declare another dify_backup_dir")
        stage = Path(tempfile.mkdtemp(dir=directory, prefix=".part-"))
        try:
            self._freeze_and_copy(release, stage)
            archive = self._pack(release, stage, directory)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        self._prune(directory)
        say(f"backup {archive.name}: {archive.stat().st_size / 1e6:.1f} MB")
        return archive

    def _check_space(self, directory: Path, what: str, fix: str) -> None:
        """Raise StackError where the copies could fill the disk, before anything is paused."""
        volumes = self.root / "volumes"
        database = size_of(volumes / "db" / "data")
        named = (size_of(_mountpoint(name)) for name in _named_volumes(self.config["project"]))
        # Copies, then the archive of them; a dump is smaller by far than the tables and their log.
        needed = 2 * (size_of(volumes) - database + sum(named)) + database
        free = shutil.disk_usage(directory).free
        if free < needed:
            raise StackError(
                f"{what}: it may take {needed / 1e9:.1f} GB, and {directory} has"
                f" {free / 1e9:.1f} GB free: {fix}"
            )

    def _freeze_and_copy(self, release: Release, stage: Path) -> None:
        containers = release.containers()
        others = [
            item["Id"]
            for name, item in containers.items()
            if name != DATABASE and item["State"]["Status"] == "running"
        ]
        if containers.get(DATABASE, {}).get("State", {}).get("Status") != "running":
            raise StackError(f"{DATABASE} does not run, so there is nothing to dump")
        if containers.get("redis", {}).get("State", {}).get("Status") == "running":
            said = release.compose("exec", "-T", "redis", "redis-cli", "save").strip()
            if said != "OK":
                raise StackError(f"redis-cli save: {said}")
        say("pausing the containers")
        (self.root / ".frozen").touch()
        try:
            if others:
                run("docker", "pause", *others)
            say("dumping the databases")
            for name in _databases(release):
                _dump(release, name, stage / f"database-{name}.dump")
            say("copying the volumes")
            _tar(stage / "volumes.tar", self.root / "volumes", "--exclude=./db/data")
            for name in _named_volumes(self.config["project"]):
                _tar(stage / f"named-{name}.tar", _mountpoint(name))
        finally:
            self.unpause()
        _tar(stage / "release.tar", release.directory, "--exclude=./volumes")
        # Slower than the copying, so only now that nobody waits for it.
        run("gzip", *(str(path) for path in sorted(stage.glob("*.tar"))))
        for path in self._own_files():
            shutil.copy2(path, stage / path.name)

    def _own_files(self) -> list[Path]:
        """What this project keeps of Dify on the host: secrets, keys, memory."""
        client = json.loads(Path(self.config["client"]).read_text())
        paths = [Path(self.config["secrets"]), Path(client["memory"]), Path(client["keys"])]
        return [path for path in paths if path.exists()]

    def _pack(self, release: Release, stage: Path, directory: Path) -> Path:
        files = {path.name: sha256(path) for path in sorted(stage.iterdir())}
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        manifest = {"version": release.version, "made": now, "files": files}
        (stage / "manifest.json").write_text(json.dumps(manifest, indent=1))
        archive = directory / f"dify-{release.version}-{now}.tar"
        part = stage.with_name(f"{stage.name}.tar")
        try:
            # Before there is anything in it: every secret will be.
            part.touch(mode=0o600)
            run("tar", "--create", "--file", str(part), "--directory", str(stage), ".")
            sync(part)
            write(archive.with_name(f"{archive.name}.sha256"), f"{sha256(part)}  {archive.name}\n")
            part.rename(archive)
        finally:
            part.unlink(missing_ok=True)
        return archive

    def _prune(self, directory: Path) -> None:
        archives = sorted(directory.glob("dify-*.tar"), key=lambda path: path.stat().st_mtime)
        kept = self.state.get("backup")
        for path in archives[: -self.config["backup"]["keep"]]:
            if str(path) != kept:
                path.unlink()
                path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)

    def is_backup_due(self) -> bool:
        """Whether the newest archive would be too old before this is asked again."""
        directory = Path(self.config["backup"]["dir"])
        newest = max((path.stat().st_mtime for path in directory.glob("dify-*.tar")), default=0)
        return bool(time.time() - newest > self.config["backup"]["due"])

    def restore(self, archive: Path) -> None:
        """Have the state of `archive`, which must be of the declared version."""
        manifest = read_manifest(archive)
        if manifest["version"] != self.config["version"]:
            raise StackError(
                f"the backup is of Dify {manifest['version']}: declare dify_version = "
                f"'{manifest['version']}' to restore it, and upgrade afterwards"
            )
        # On a bare host too: where this was cut off, PostgreSQL runs on what is replaced.
        self._down()
        self.release.prepare()
        aside = self._aside(archive) if self.state.get("version") else None
        self._import(archive, self.release, aside)
        self._keep(version=self.config["version"])

    def _aside(self, archive: Path) -> Path:
        """Where `archive` puts what was there before it.

        The same name when this was cut off and is done again, another for another archive.
        """
        return self.root / f"volumes.before-{int(archive.stat().st_mtime)}"

    def _import(self, archive: Path, release: Release, former: Path | None) -> None:
        say(f"restoring {archive.name}")
        stage = self.root / ".restore"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(mode=0o700)
        unpack_checked(archive, stage)
        self._replace_volumes(stage, former)
        self._start_database(release)
        for dump in sorted(stage.glob("database-*.dump")):
            _load(release, dump.name[len("database-") : -len(".dump")], dump)
        for path in self._own_paths():
            if (stage / path.name).exists():
                shutil.copy2(stage / path.name, path)
        shutil.rmtree(stage)

    def _start_database(self, release: Release) -> None:
        service = {DATABASE: release.services()[DATABASE]}
        self._pull(service)
        release.compose("up", "--detach", "--no-recreate", DATABASE)
        self._wait_well(release, service)

    def _own_paths(self) -> list[Path]:
        client = json.loads(Path(self.config["client"]).read_text())
        return [Path(client["memory"]), Path(client["keys"])]

    def _replace_volumes(self, stage: Path, former: Path | None) -> None:
        volumes = self.root / "volumes"
        if former and volumes.exists() and not former.exists():
            volumes.rename(former)
        shutil.rmtree(volumes, ignore_errors=True)
        volumes.mkdir(mode=0o755)
        _untar(stage / "volumes.tar.gz", volumes)
        storage = volumes / "app" / "storage"
        if storage.exists():
            run("chown", "--recursive", _STORAGE_OWNER, str(storage))
        for part in sorted(stage.glob("named-*.tar.gz")):
            name = part.name[len("named-") : -len(".tar.gz")]
            _make_volume(self.config["project"], name)
            place = _mountpoint(name)
            if former:
                _put_aside(place, former / f"named-{name}.tar")
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            _untar(part, place)

    def unpause(self) -> None:
        """Let go of every container that a backup paused."""
        label = f"label=com.docker.compose.project={self.config['project']}"
        paused = run(
            "docker", "ps", "--quiet", "--filter", label, "--filter", "status=paused"
        ).split()
        if paused:
            run("docker", "unpause", *paused)
        (self.root / ".frozen").unlink(missing_ok=True)


def _crashes(container: dict[str, Any] | None) -> int:
    return container["RestartCount"] if container else 0


def moment(text: str) -> float:
    """Docker's time of day, whose fraction has nine digits, as seconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    parsed = datetime.datetime.strptime(f"{whole}+0000", "%Y-%m-%dT%H:%M:%S%z")
    return parsed.timestamp() + float(f"0.{fraction or 0}")


def numbers(version: str) -> tuple[int, ...]:
    """A version as something to compare."""
    return tuple(int(part) for part in version.split("."))


def size_of(directory: Path) -> int:
    """Bytes of the files under a directory; it, or any of them, may be gone by now."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(place, name).lstat().st_size
    return total


def sync(path: Path) -> None:
    """Have a file on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _databases(release: Release) -> list[str]:
    text = release.compose(
        "exec", "-T", DATABASE, "sh", "-c",
        'PGPASSWORD="$POSTGRES_PASSWORD" psql -U "${POSTGRES_USER:-postgres}" -d postgres -Atc '
        "\"select datname from pg_database where not datistemplate and datname <> 'postgres'\"",
    )  # fmt: skip
    return text.split()


def _dump(release: Release, name: str, target: Path) -> None:
    command = 'PGPASSWORD="$POSTGRES_PASSWORD" exec pg_dump -U "${POSTGRES_USER:-postgres}" -Fc'
    # Who holds a lock may be paused, and would hold it as long as the dump waits for it.
    command += " --lock-wait-timeout=60000"
    container = release.containers()[DATABASE]["Id"]
    with target.open("wb") as file:
        done = subprocess.run(
            ["docker", "exec", container, "sh", "-c", f'{command} -d "$1"', "sh", name],
            stdout=file, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise StackError(f"pg_dump {name}: {done.stderr.decode()[-500:]}")


def _load(release: Release, name: str, dump: Path) -> None:
    say(f"restoring the database {name}")
    psql = (
        'export PGPASSWORD="$POSTGRES_PASSWORD"; user=${POSTGRES_USER:-postgres};'
        ' psql -q -U "$user" -d postgres -v ON_ERROR_STOP=1'
        ' -c "DROP DATABASE IF EXISTS \\"$1\\"" -c "CREATE DATABASE \\"$1\\"" &&'
        ' exec pg_restore -U "$user" --no-owner --exit-on-error -d "$1"'
    )
    container = release.containers()[DATABASE]["Id"]
    with dump.open("rb") as file:
        run("docker", "exec", "--interactive", container, "sh", "-c", psql, "sh", name, stdin=file)


def _tar(target: Path, directory: Path, *options: str) -> None:
    run("tar", "--create", "--numeric-owner", "--acls", "--xattrs", *options,
        "--file", str(target), "--directory", str(directory), ".")  # fmt: skip


def _untar(archive: Path, directory: Path) -> None:
    run("tar", "--extract", "--gzip", "--numeric-owner", "--same-owner", "--same-permissions",
        "--acls", "--xattrs", "--file", str(archive), "--directory", str(directory))  # fmt: skip


def _put_aside(directory: Path, archive: Path) -> None:
    """Have the first content that `directory` had in `archive`."""
    if not archive.exists():
        archive.parent.mkdir(mode=0o700, exist_ok=True)
        part = archive.with_name(f".{archive.name}.part")
        _tar(part, directory)
        part.rename(archive)


def _named_volumes(project: str) -> list[str]:
    label = f"label=com.docker.compose.project={project}"
    return run("docker", "volume", "ls", "--quiet", "--filter", label).split()


def _mountpoint(name: str) -> Path:
    return Path(run("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", name).strip())


def _make_volume(project: str, name: str) -> None:
    if name not in _named_volumes(project):
        # As Compose labels it, or it would not take it for its own.
        short = name[len(f"{project}_") :]
        run("docker", "volume", "create", "--label", f"com.docker.compose.project={project}",
            "--label", f"com.docker.compose.volume={short}", name)  # fmt: skip


def read_manifest(archive: Path) -> Any:
    """The manifest of a backup. Raises StackError when it is none, or not whole."""
    beside = archive.with_name(f"{archive.name}.sha256")
    if beside.exists() and beside.read_text().split()[0] != sha256(archive):
        raise StackError(f"{archive}: not what its .sha256 says; it is damaged")
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile("./manifest.json")
            return json.loads(file.read()) if file else {}
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise StackError(f"{archive}: no backup of Dify: {error}") from None


def unpack_checked(archive: Path, directory: Path) -> None:
    """Unpack a backup whose every part has the checksum that its manifest says."""
    files = read_manifest(archive)["files"]
    run("tar", "--extract", "--file", str(archive), "--directory", str(directory))
    for name, expected in files.items():
        path = directory / name
        if not path.is_file() or sha256(path) != expected:
            raise StackError(f"{archive}: {name} is damaged; nothing was restored from it")


@contextlib.contextmanager
def locked(root: Path, *, wait: bool = True) -> Iterator[bool]:
    """One change at a time: a backup by the timer waits for a deploy, and the other way round.

    Gives whether the lock is held, which it is unless another has it and this does not `wait`.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            say("waiting for the end of a backup, or of another change")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield True


def _change(stack_of: Callable[[], Stack], command: str, options: list[str]) -> None:
    with locked(stack_of().root, wait=command != "unpause") as mine:
        stack = stack_of()
        if command == "converge":
            stack.converge()
        elif command == "setup":
            stack.set_up()
        elif command == "unpause":
            # Whoever else is at work lets go of what it paused by itself.
            if mine:
                stack.unpause()
        elif "--due" not in options or stack.is_backup_due():
            stack.refuse_backup()
            stack.backup()


def _settle(stack_of: Callable[[], Stack]) -> None:
    """Settle, letting go of the lock in between: what is broken may need a deploy."""
    deadline = time.monotonic() + stack_of().config["start_timeout"]
    shown = None
    while True:
        try:
            with locked(stack_of().root):
                text = "; ".join(stack_of().settle())
        except StackError as error:
            text = str(error)
        if not text:
            return
        if text != shown:
            shown = text
            say(text)
        if time.monotonic() > deadline:
            raise StackError(text)
        time.sleep(5)


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    command, path, *options = arguments
    config = json.loads(Path(path).read_text())

    def stack_of() -> Stack:
        return Stack(config, path)

    try:
        if command == "check":
            look = dify_client.unfrozen(Path(config["root"]), lambda: stack_of().pending())
            say(json.dumps({"pending": look}))
        elif command == "settle":
            _settle(stack_of)
        else:
            _change(stack_of, command, options)
    except (StackError, OSError) as error:
        print(f"Dify: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
