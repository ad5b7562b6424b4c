"""From one version of Dify to another: proven by a chat, or back at the backup made before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dify_client
from common import ProgramError, say
from dify_backups import Backups
from dify_compose import Release
from dify_console import dify_of
from dify_containers import Containers
from dify_health import NGINX
from dify_knowledge import Knowledge
from dify_state import Event, Phase, StateFile
from dify_stores import stores_problem


class Upgrades:
    """Upgrades of one host's Dify, and the returns from those that failed."""

    def __init__(
        self, config: dict[str, Any], state: StateFile, containers: Containers, backups: Backups
    ) -> None:
        self.config, self.state = config, state
        self.containers, self.backups = containers, backups

    def upgrade(self, target: Release) -> None:
        """From what runs to `target`."""
        now = self.state.now.version
        if numbers(target.version) < numbers(now):
            raise ProgramError(
                f"Dify {now} runs, and a database does not go back to {target.version}: declare "
                f"{now}, or restore a backup of that version (docs/operating/dify.md)"
            )
        resumed = self.state.now.phase is Phase.REPLACED
        former = Release(self.config, now)
        if not resumed:
            self._make_ready(former, target)
        try:
            if not resumed:
                self._put_away(former, target)
            self.containers.down()
            target.prepare()
            self.containers.bring_up(target)
            self._prove()
        except Exception as error:
            # Whatever it was: somebody waits for a Dify that answers.
            aside = self.take_back(str(error))
            left = f"; what {target.version} made of the data is in {aside}" if aside else ""
            raise ProgramError(
                f"the upgrade to {target.version} failed and was taken back, {now} runs as "
                f"before{left}: {error}"
            ) from error
        self.state.tell(Event.PROVEN, version=target.version)
        say(f"Dify {target.version} answers")

    def _make_ready(self, former: Release, target: Release) -> None:
        """All that can fail while `former` still runs: the files, the images, and the proof."""
        target.prepare()
        services = self.containers.judged(target)
        before = former.services()
        if problem := stores_problem(before, services):
            raise ProgramError(f"no upgrade to {target.version}: {problem}")
        try:
            self.containers.check_image_room(before, services)
        except ProgramError as error:
            raise ProgramError(f"no upgrade to {target.version}: {error}") from None
        self.containers.pull(services)
        try:
            if self.state.now.is_under_way:
                # Cut off, perhaps with nginx stopped.
                self.containers.bring_up(former)
            self._prove()
        except Exception as error:
            raise ProgramError(
                f"no upgrade to {target.version}, as Dify {former.version} does not answer a chat "
                f"now, so nothing could be proven by one: {error}; deploy with dify_version = "
                f"'{former.version}' first"
            ) from error
        fix = "make room: the data that a failed one leaves is put aside, not deleted"
        self.backups.check_space(former.root, f"no upgrade to {target.version}", fix)

    def _put_away(self, former: Release, target: Release) -> None:
        """Take `former` down, with a backup of its very last state."""
        say(f"backing up {former.version} before the upgrade to {target.version}")
        self.state.tell(Event.UPGRADE_BEGINS, to=target.version, backup="")
        self.containers.start_database(former)
        # What is accepted after the backup would be lost with a return to it.
        former.compose("stop", NGINX)
        self.state.tell(Event.BACKED_UP, backup=str(self.backups.make()))
        self.containers.down()
        # Only from here on the backup is newer than all else there is of `former`.
        self.state.tell(Event.TAKEN_DOWN)

    def _prove(self) -> None:
        client = dify_of(self.config["client"])
        if not all(client.keys.get(app["role"]) for app in client.config["apps"]):
            say("no sample app yet, so no chat proves this version")
            return
        say("asking the sample apps")
        dify_client.chat(client)
        knowledge = Knowledge(client)
        if self.state.now.phase is Phase.REPLACED:
            knowledge.prove()
        else:
            knowledge.note()

    def take_back(self, reason: str) -> Path | None:
        """End an upgrade that is under way: the release before it runs, with what it had.

        Its backup is imported only when it had been replaced. What is on the disk instead is put
        aside: nginx was up, so people may have worked with the new one. Gives where.
        """
        aside = None
        # Its own files are as they were: the settings of the new one are none of its business.
        former = Release(self.config, self.state.now.version)
        say(f"returning to {former.version}: {reason}")
        if self.state.now.phase is not Phase.UPGRADING:
            archive = Path(self.state.now.backup)
            trees = self.backups.lay_out(archive)
            # Cut off here, what is on the disk is of neither release.
            self.state.tell(Event.RETURN_BEGINS)
            self.containers.down()
            aside = self.backups.aside(archive)
            self.backups.put_back(former, aside, trees)
        # The backup is never imported twice: from here on there may be something to lose again.
        self.state.tell(Event.RETURNED, started={})
        self.containers.bring_up(former)
        return aside


def numbers(version: str) -> tuple[int, ...]:
    """A version as something to compare."""
    return tuple(int(part) for part in version.split("."))
