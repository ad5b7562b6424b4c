"""Dify's own compose stack on a host: kept as declared, upgraded, backed up and restored.

usage: dify_stack.py check|converge|setup|settle|backup|unpause CONFIG

`check` changes nothing and prints {"pending": [reason, ...]}; `converge` does what `check` would
list and waits until every service is well; `setup` is `dify_client.py apply`, at a time when
nothing else changes Dify; `settle` has what a boot left down up again, as it is; `backup` writes
an archive, with `--due` only when the newest is old; `unpause` undoes what a killed backup left.
Runs as root, standard library only.

Layout under CONFIG's `root`: `releases/<version>/` is a working copy of the pristine release with
our `.env` and `docker-compose.override.yaml`, `volumes/` is the state that every version shares,
`state.json` says which version runs and what was under way when the host was cut off
(`dify_state.py`).
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dify_client
from common import ProgramError, log, run, say
from dify_backups import Backups
from dify_compose import Release
from dify_console import dify_of
from dify_containers import Containers
from dify_freeze import locked, unfrozen
from dify_health import NGINX, Trouble, container_trouble, stale_nginx, troubles_of
from dify_state import Event, Phase, StateFile
from dify_upgrades import Upgrades

# A container that Docker leaves alone.
_DOWN = ("created", "exited", "dead")


class Stack:
    """The declared release on this host."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.root = Path(config["root"])
        self.release = Release(config, config["version"])
        self.state = StateFile(self.root / "state.json")
        self.containers = Containers(config, self.state)
        self.backups = Backups(config, self.state, self.containers)
        self.upgrades = Upgrades(config, self.state, self.containers, self.backups)

    # -- looking

    def pending(self) -> list[str]:
        """Every reason to change something."""
        state = self.state.now
        if Path(self.config["restore"]).exists():
            return ["a backup is to be restored"]
        if state.is_under_way:
            return ["an upgrade was cut off"]
        if state.version != self.release.version:
            return [
                f"Dify {state.version or 'is not installed'}, declared is {self.release.version}"
            ]
        if state.phase is Phase.INSTALLING:
            return ["the first installation was cut off"]
        if not self.release.is_prepared():
            return ["settings have changed"]
        return [str(trouble) for trouble in self._troubles()]

    def _troubles(self) -> list[Trouble]:
        """Why the containers are not the declared ones, or not well."""
        services, containers = self.release.services(), self.release.containers()
        started = self.state.now.started
        troubles = [
            container_trouble(name, service, containers.get(name), started.get(name))
            for name, service in services.items()
        ]
        surplus = sorted(set(containers) - set(services))
        troubles += [Trouble(name, "not declared") for name in surplus]
        troubles += [stale_nginx(containers)]
        return [trouble for trouble in troubles if trouble]

    # -- changing

    def converge(self) -> None:
        """Have the declared release up, from whatever state the host is in."""
        self.containers.unpause()
        archive = Path(self.config["restore"])
        if archive.exists():
            self.backups.restore(archive, self.release)
            archive.unlink()
        target = self.release.version
        if self.state.now.phase is Phase.RETURNING:
            self.upgrades.take_back("an earlier return was cut off")
        elif self.state.now.is_under_way and self.state.now.to != target:
            self.upgrades.take_back("the declared version is another again")
        if self.state.now.phase is Phase.INSTALLING and self.state.now.version != target:
            self._give_up()
        if self.state.now.phase is not Phase.ABSENT and self.state.now.version != target:
            self.upgrades.upgrade(self.release)
            return
        self.release.prepare()
        self.containers.bring_up(self.release)

    def _give_up(self) -> None:
        """Forget a first installation that never answered: any version may follow it."""
        say(f"Dify {self.state.now.version} never answered: starting afresh")
        self.containers.down()
        volumes = self.root / "volumes"
        if volumes.exists():
            volumes.rename(self.root / f"volumes.before-{int(time.time())}")
        self.state.tell(Event.GIVEN_UP, version="", started={})

    def set_up(self) -> None:
        """Have owner, plugin, models and apps as declared."""
        # Left by a killed backup.
        self.containers.unpause()
        dify_client.apply(dify_of(self.config["client"]))

    # -- after a boot

    def settle(self) -> list[str]:
        """Have the containers up again as they were; what is not well yet.

        Docker starts them in no order, and gives them other addresses than nginx knows; one that
        is published at an address which came up late it leaves down for ever. What is declared is
        a deploy's business, and what was cut off too.
        """
        self.containers.unpause()
        if self.state.now.phase is not Phase.RUNNING:
            return []
        release = Release(self.config, self.state.now.version)
        services, containers = release.services(), release.containers()
        there = {name: service for name, service in services.items() if name in containers}
        troubles = troubles_of(there, containers)
        down = [name for name in troubles if containers[name]["State"]["Status"] in _DOWN]
        if down:
            say(f"starting {', '.join(down)}")
            run("docker", "start", *(containers[name]["Id"] for name in down))
        # Without waiting for probes: every page is a 502 until then.
        runs = all(trouble.passes for trouble in troubles.values())
        if runs and (stale := stale_nginx(containers)):
            say(f"restarting it: {stale}")
            release.compose("restart", NGINX)
        if not troubles and dify_of(self.config["client"]).setup_state() is None:
            return ["Dify's API does not answer"]
        return [str(trouble) for trouble in troubles.values()]


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
                stack.containers.unpause()
        elif "--due" not in options or stack.backups.is_due():
            stack.backups.refuse()
            stack.backups.make()


def _settle(stack_of: Callable[[], Stack]) -> None:
    """Settle, letting go of the lock in between: what is broken may need a deploy."""
    deadline = time.monotonic() + stack_of().config["start_timeout"]
    shown = None
    while True:
        try:
            with locked(stack_of().root):
                text = "; ".join(stack_of().settle())
        except ProgramError as error:
            text = str(error)
        if not text:
            return
        if text != shown:
            shown = text
            say(text)
        if time.monotonic() > deadline:
            raise ProgramError(text)
        time.sleep(5)


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    command, path, *options = arguments
    config = json.loads(Path(path).read_text())

    def stack_of() -> Stack:
        return Stack(config)

    try:
        if command == "check":
            look = unfrozen(Path(config["root"]), lambda: stack_of().pending())
            say(json.dumps({"pending": look}))
        elif command == "settle":
            _settle(stack_of)
        else:
            _change(stack_of, command, options)
    except (ProgramError, OSError, http.client.HTTPException) as error:
        log(f"Dify: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
