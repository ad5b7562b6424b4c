"""Dify's containers: started, waited for, stopped, and let go of."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from common import CommandError, ProgramError, run, say
from dify_compose import Release, image_problem
from dify_console import DifyError, dify_of
from dify_freeze import mark
from dify_health import (
    DATABASE,
    NGINX,
    Services,
    crashes,
    identity,
    stale_nginx,
    state_trouble,
    troubles_of,
)
from dify_passwords import password_problem
from dify_state import Event, Phase, StateFile

# Many a service ends a few times until what it needs is up.
_CRASHES, _CRASHING = 4, 60.0
_LOG_LINES = "12"
# What one image of Dify's takes at most, fetched and unpacked, with some left for the containers.
_IMAGE_ROOM = 5_000_000_000


class Containers:
    """The containers of the project, of whichever release."""

    def __init__(self, config: dict[str, Any], state: StateFile) -> None:
        self.config, self.state = config, state
        self.root = Path(config["root"])

    def bring_up(self, release: Release) -> None:
        """Start a prepared release, and wait until it is well."""
        say(f"starting Dify {release.version}")
        services = self.judged(release)
        self.pull(services)
        self.unpause()
        if self.state.now.phase is Phase.ABSENT:
            self.state.tell(Event.STARTS, version=release.version)
        self._up(release, services)
        containers = release.containers()
        self.state.note_started(
            {n: identity(s, containers[n]) for n, s in services.items() if n in containers}
        )
        self.wait_well(release, services)
        self._wait_migrated(release)
        if stale_nginx(release.containers()):
            say("restarting nginx: what is behind it was made anew")
            release.compose("restart", NGINX)
        self.wait_answer(release)
        if self.state.now.phase is Phase.INSTALLING:
            self.state.tell(Event.ANSWERS)

    def start_database(self, release: Release) -> None:
        """Have the database of a prepared release up, and nothing else that is not."""
        service = {DATABASE: release.services()[DATABASE]}
        self.pull(service)
        release.compose("up", "--detach", "--no-recreate", DATABASE)
        self.wait_well(release, service)

    def judged(self, release: Release) -> Services:
        """The services of a prepared release. Raises ProgramError for those that may not run."""
        services = release.services()
        if problem := image_problem(services) or password_problem(services, release.directory):
            raise ProgramError(problem)
        return services

    def pull(self, services: Services) -> None:
        """Have the images of `services` here."""
        images = sorted({service["image"] for service in services.values()})
        for number, image in enumerate(images, 1):
            try:
                run("docker", "image", "inspect", image)
            except CommandError:
                self._refuse_last_room(image)
                say(f"pulling image {number} of {len(images)}: {image}")
                run("docker", "pull", "--quiet", image)

    def _refuse_last_room(self, image: str) -> None:
        """Raise ProgramError where the largest image there is could fill the disk."""
        root = run("docker", "info", "--format", "{{.DockerRootDir}}").strip()
        free = shutil.disk_usage(root).free
        if free < _IMAGE_ROOM:
            raise ProgramError(
                f"{image} is not pulled: it may take up to {_IMAGE_ROOM / 1e9:.0f} GB, and {root} "
                f"has {free / 1e9:.1f} GB free: make room, by `docker image prune --all` say"
            )

    def check_image_room(self, before: Services, after: Services) -> None:
        """Raise ProgramError where the images of a release could fill the disk.

        How large one is, is known once it is here: each may take what the one before it takes.
        """
        root = run("docker", "info", "--format", "{{.DockerRootDir}}").strip()
        known = {name: _size(service["image"]) or 0 for name, service in before.items()}
        # One image is that of several services.
        missing = {
            service["image"]: known.get(name, 0)
            for name, service in after.items()
            if _size(service["image"]) is None
        }
        needed, free = sum(missing.values()), shutil.disk_usage(root).free
        if free < needed:
            raise ProgramError(
                f"its {len(missing)} images may take {needed / 1e9:.1f} GB, and {root} has "
                f"{free / 1e9:.1f} GB free: make room, by `docker image prune --all` say"
            )

    def _up(self, release: Release, services: Services) -> None:
        try:
            release.compose("up", "--detach", "--remove-orphans", "--quiet-pull")
        except CommandError:
            # One that others wait for did not become well; Compose says which, not why.
            there = release.containers()
            unwell = [
                name
                for name, service in services.items()
                if name in there
                and there[name]["State"]["Status"] != "created"
                and state_trouble(name, service, there[name]["State"])
            ]
            self._show_logs(release, unwell)
            raise

    def wait_well(self, release: Release, services: Services) -> None:
        """Until every one of `services` is well. Raises ProgramError when one will not be."""
        begun = time.monotonic()
        deadline = begun + self.config["start_timeout"]
        before: dict[str, int] = {}
        shown = None
        while True:
            containers = release.containers()
            troubles = troubles_of(services, containers)
            if not troubles:
                return
            for name in services:
                before.setdefault(name, crashes(containers.get(name)))
            crashed = [
                name
                for name in troubles
                if crashes(containers.get(name)) - before[name] >= _CRASHES
                and time.monotonic() - begun > _CRASHING
            ]
            lines = sorted(map(str, troubles.values()))
            if crashed or time.monotonic() > deadline:
                self._show_logs(release, crashed or sorted(troubles))
                ends = [f"{name}: ends again and again" for name in crashed]
                raise ProgramError("; ".join(ends or lines))
            text = f"waiting for {', '.join(lines)}"
            if text != shown:
                shown = text
                say(text)
            time.sleep(2)

    def _wait_migrated(self, release: Release) -> None:
        """Until no container migrates: those that find another at it serve the old schema.

        Dify's command ends well either way; only what it prints tells that it did nothing.
        """
        deadline = time.monotonic() + self.config["start_timeout"]
        while "skipped" in release.compose("exec", "-T", "api", "flask", "upgrade-db"):
            if time.monotonic() > deadline:
                self._show_logs(release, ["api", "worker"])
                raise ProgramError(
                    "the database is still being migrated, or a dead one's lock is on"
                )
            say("waiting for the database's migration")
            time.sleep(5)

    def wait_answer(self, release: Release) -> None:
        """Until Dify's API answers."""
        say("waiting for Dify's API")
        try:
            dify_of(self.config["client"]).wait_ready()
        except DifyError:
            self._show_logs(release, [NGINX, "api"])
            raise

    def _show_logs(self, release: Release, names: list[str]) -> None:
        for name in names[:3]:
            logs = release.compose("logs", "--no-color", "--tail", _LOG_LINES, name)
            say(f"--- the end of {name}'s log ---\n{logs.rstrip()}")

    def down(self) -> None:
        """Remove the project's containers, of whatever release; by their label, without files."""
        run("docker", "compose", "--project-name", self.config["project"],
            "down", "--remove-orphans", cwd=self.root)  # fmt: skip

    def unpause(self) -> None:
        """Let go of every container that a backup paused."""
        label = f"label=com.docker.compose.project={self.config['project']}"
        paused = run(
            "docker", "ps", "--quiet", "--filter", label, "--filter", "status=paused"
        ).split()
        if paused:
            run("docker", "unpause", *paused)
        mark(self.root).unlink(missing_ok=True)


def _size(image: str) -> int | None:
    """Bytes of an image, and of what it shares with others; None while it is not here."""
    try:
        return int(run("docker", "image", "inspect", "--format", "{{.Size}}", image))
    except CommandError:
        return None
