"""What runs on a GPU host replaced by what is declared, and put back when that does not answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand

from fleet.declare.fleet import FleetHost
from fleet.kit.commands import Commands, fail, or_journal, verify_unit, when_answers
from fleet.kit.facts.files import FileStates
from fleet.kit.files import install_files
from fleet.kit.paths import RUN, STARTED, UNITS
from fleet.kit.units import run_unit
from fleet.models.files import managed_files
from fleet.models.paths import LOADER_TIMER
from fleet.ollama.facts import OllamaReleases, OllamaServers
from fleet.ollama.files import running_files
from fleet.ollama.operations import install_units, remove_servers, switch_release
from fleet.ollama.paths import LOADER_UNIT, OLLAMA_CURRENT
from fleet.ollama.servers import Instance, instances_of
from fleet.ollama.settings import Ollama
from fleet.serving.ready import answers, models_of, servers_there, there
from fleet.serving.turn import Turn

_ROOM = 256 * 1024  # bytes: many times what is written between a stop and a start
_KEPT = f"{RUN}/before"
_SAID = f"{_KEPT}/.said"
_FAILED = f"{_KEPT}/.failed"


@dataclass(frozen=True)
class Before:
    """What runs already: units, also of servers that are declared no more, and their release.

    `servers` are the declared ones that are there, by whatever unit.
    """

    units: tuple[str, ...]
    servers: tuple[Instance, ...]
    release: str | None

    def __str__(self) -> str:
        """It in an operator's words."""
        units = ", ".join(self.units) or "nothing"
        release = self.release.rsplit("/", 1)[-1] if self.release else None
        return f"{units} of Ollama {release}" if release else units


def what_runs(me: FleetHost) -> Before:
    """What there is to put back."""
    units: tuple[str, ...] = host.get_fact(OllamaServers).running
    release = host.get_fact(OllamaReleases, version=me[Ollama].version).current
    return Before(units, servers_there(me), release)


def keep(before: Before) -> Commands:
    """Have copies of what is to be put back."""
    yield StringCommand("rm -rf", _KEPT, "&& install -d -m 700", RUN, _KEPT)
    for unit in before.units:
        # One whose file somebody removed runs on; there is nothing to put back then.
        path = QuoteString(f"{UNITS}/{unit}")
        yield StringCommand("[ ! -e", path, "] || cp -a --", path, _KEPT)


def tried(*parts: Commands) -> Commands:
    """The commands of `parts` up to the first that fails, which fails nothing yet.

    What that one wrote to standard error is kept for `told`; `has_failed` tells of it.
    """
    yield StringCommand("rm -f", _FAILED)
    for command in chain(*parts):
        yield StringCommand(
            "(", command, ") 2>>", _SAID, "|| : >", _FAILED, **command.connector_arguments
        )  # fmt: skip
        if has_failed():
            return


def has_failed() -> bool:
    """Whether a command that was `tried` last has failed."""
    return bool(host.get_fact(FileStates, paths=[_FAILED]))


def told(message: str) -> StringCommand:
    """Fail with all that was written by what was `tried`, and `message`."""
    return StringCommand("cat", _SAID, ">&2; printf '%s\\n'", QuoteString(message), ">&2; exit 1")


def lay_down(me: FleetHost) -> Commands:
    """Have the release and the units in place; what runs goes on as it is.

    The loader's files too: it starts with the servers.
    """
    instances = list(instances_of(me))
    yield from install_units._inner(instances=instances)
    yield from install_files._inner(
        files=managed_files(me),
        check=StringCommand(
            "(", verify_unit(LOADER_UNIT), ") && (", verify_unit(LOADER_TIMER), ")"
        ),
    )
    if any(item.runtime == "systemd" for item in instances):
        yield from switch_release._inner(version=me[Ollama].version)
    yield StringCommand("systemctl daemon-reload")


def start(me: FleetHost) -> Commands:
    """Have the declared servers run, and no other."""
    instances = list(instances_of(me))
    # Before the new ones start, which may have a port of theirs.
    yield from remove_servers._inner(instances=instances)
    for item in instances:
        yield from run_unit._inner(
            unit=item.unit,
            files=running_files(item),
            health_url=f"{item.url}/api/version",
            container=item.container,
        )
    # Other units than before do not pull it in yet, and without it nothing is in their memory.
    yield StringCommand("systemctl reenable --quiet", LOADER_UNIT)
    yield StringCommand("systemctl start --no-block", LOADER_UNIT)


def refuse_without_room(me: FleetHost) -> Commands:
    """Fail, while nothing is interrupted yet, where a folder that is written to has no room."""
    for folder in (UNITS, STARTED, RUN):
        why = f"{me.name}: {folder} has no room: make room there; nothing was interrupted"
        yield StringCommand(
            f"mkdir -p -m 700 {folder} && file=$(mktemp {folder}/.room.XXXXXX) &&",
            f'head -c {_ROOM} /dev/zero >"$file" 2>/dev/null; rc=$?; rm -f "$file"; [ $rc = 0 ] ||',
            "{", fail(why), "; }",
        )  # fmt: skip


def replace(me: FleetHost, turn: Turn) -> Commands:
    """Have what runs replaced, and back when the new does not answer; the host fails then."""
    before = what_runs(me)
    had = there(models_of(me, before.servers))
    yield from keep(before)
    yield from tried(lay_down(me), start(me), answers(me, instances_of(me), had))
    if not has_failed():
        return
    yield from tried(put_back(before), answers(me, before.servers, had))
    if has_failed():
        yield told(f"{me.name}: {before} was put back, and does not answer either")
        return
    turn.let_in()
    yield told(
        f"{me.name}: what is declared does not answer, as its output above says; {before} was put "
        "back and serves as before"
    )


def put_back(before: Before) -> Commands:
    """Have the units and the release as they were, and running again, and no other server."""
    now: tuple[str, ...] = host.get_fact(OllamaServers).running
    for unit in now:
        if unit not in before.units:
            # It may have a port of theirs.
            name = QuoteString(unit)
            yield StringCommand("systemctl disable --now --quiet", name)
            yield StringCommand("systemctl reset-failed --quiet", name, "2>/dev/null || true")
    for unit in before.units:
        kept = QuoteString(f"{_KEPT}/{unit}")
        yield StringCommand("[ ! -e", kept, "] || cp -a --", kept, QuoteString(f"{UNITS}/{unit}"))
    if before.release:
        yield StringCommand(
            "ln -sfn", QuoteString(before.release), f"{OLLAMA_CURRENT}.new",
            "&& mv -T", f"{OLLAMA_CURRENT}.new", OLLAMA_CURRENT,
        )  # fmt: skip
    yield StringCommand("systemctl daemon-reload")
    for unit in before.units:
        name = QuoteString(unit)
        yield or_journal(
            StringCommand(
                "systemctl enable --quiet", name, "2>/dev/null;",
                "systemctl reset-failed --quiet", name, "2>/dev/null; systemctl restart", name,
            ),
            unit,
        )  # fmt: skip
    for item in before.servers:
        yield or_journal(when_answers(f"{item.url}/api/version", seconds=60), item.unit)
