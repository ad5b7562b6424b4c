"""What a host keeps of its deploys: which was the last, and whether one began and did not end."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pyinfra.api import FactBase, StringCommand
from typing_extensions import override

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.connection.lock import who
from fleet.kit.on_host.outside import FormError, parsed
from fleet.kit.paths import ETC, RUN, RUN_ID
from fleet.version import Build, Standing, standing

DEPLOYED = f"{ETC}/deployed.json"
DEPLOYING = f"{ETC}/deploying.json"
SCHEMA = "llm-fleet-deployed/1"

_MOST = 8192  # bytes of such a file
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_COMMIT = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")
_RUN = re.compile("[0-9a-f]{8}")
_LINE = re.compile("[ -~]{1,200}")
_DEPLOYED = {
    "schema": re.compile(re.escape(SCHEMA)), "version": _LINE, "commit?": _COMMIT, "dirty": bool,
    "who": _LINE, "when": _TIME, "run": _RUN, "settings": re.compile("[0-9a-f]{64}"),
}  # fmt: skip
_BEGUN = {"run": _RUN, "who": _LINE, "since": _TIME, "commit?": _COMMIT}


@dataclass(frozen=True)
class Deployed:
    """The last deploy that ended well on the host, whether or not it changed anything.

    `version` and `commit` (40 or 64 hex digits; None outside of a git checkout) are the project's,
    `dirty` says that its files differed from the commit. `who` is `alice@laptop`, `when` its end in
    UTC (`2026-11-30T20:15:00Z`), `run` as in its first line, `settings` the SHA-256 of what was
    declared for the host (`digest`).
    """

    version: str
    commit: str | None
    dirty: bool
    who: str
    when: str
    run: str
    settings: str


@dataclass(frozen=True)
class Begun:
    """A deploy that began to change the host: its run, who, since when (UTC), from which commit."""

    run: str
    who: str
    since: str
    commit: str | None


@dataclass(frozen=True)
class Record:
    """All of it. `unfinished` is a deploy without an end: at work, failed, or killed.

    `at_work` is who holds the host's lock at the moment, as in `alice@laptop, run 1a2b3c4d since
    2026-11-30 20:15 UTC`; empty when nobody does. `unreadable` has a line for each file that is not
    what a deploy writes.
    """

    deployed: Deployed | None = None
    unfinished: Begun | None = None
    at_work: str = ""
    unreadable: tuple[str, ...] = ()


class DeployedRecord(FactBase[Record]):
    """What the host keeps of its deploys, in two files that everybody there may read.

    /etc/llm-fleet/deployed.json, of the last deploy that ended well; `commit` may be null:

        {"schema": "llm-fleet-deployed/1", "version": "0.3.0", "commit": "<40 hex digits>",
         "dirty": false, "who": "alice@laptop", "when": "2026-11-30T20:15:00Z",
         "run": "1a2b3c4d", "settings": "<SHA-256>"}

    /etc/llm-fleet/deploying.json, from a deploy's first change to its end:

        {"run": "1a2b3c4d", "who": "alice@laptop", "since": "2026-11-30T20:10:00Z",
         "commit": "<40 hex digits>"}
    """

    default = Record

    @override
    def command(self) -> StringCommand:
        lock = f"{RUN}/lock"
        return StringCommand(
            *[
                f'if [ -f {path} ]; then echo "{path} $(head -c {_MOST + 1} {path} | tr "\\n" " ")"'
                "; fi;"
                for path in (DEPLOYED, DEPLOYING)
            ],
            f"if [ -f {lock} ]; then flock --nonblock --shared -E 99 {lock} true; if [ $? = 99 ];",
            f'then echo "lock $(head -n 1 {lock})"; fi; fi',
        )

    @override
    def process(self, output: list[str]) -> Record:
        values = dict(line.partition(" ")[::2] for line in output)
        unreadable: list[str] = []
        deployed = _read(values, DEPLOYED, _DEPLOYED, unreadable)
        begun = _read(values, DEPLOYING, _BEGUN, unreadable)
        return Record(
            Deployed(**_fields(deployed, Deployed)) if deployed else None,
            Begun(**_fields(begun, Begun)) if begun else None,
            values.get("lock", ""),
            tuple(unreadable),
        )


def _read(
    values: dict[str, str], path: str, form: dict[str, Any], unreadable: list[str]
) -> dict[str, Any] | None:
    text = values.get(path)
    if text is None:
        return None
    try:
        if len(text) > _MOST:
            raise FormError(f"{path} has more than {_MOST} bytes")
        found: dict[str, Any] = parsed(text, form, path)
    except FormError as error:
        unreadable.append(str(error))
        return None
    return found


def _fields(values: dict[str, Any], kind: type) -> dict[str, Any]:
    # What a later version may write besides is no matter.
    return {name: values.get(name) for name in kind.__annotations__}


def digest(me: FleetHost, fleet: Fleet) -> str:
    """SHA-256 of what is declared for a host: its groups, and all settings of what it runs.

    Secrets are no settings. What follows from other hosts is not in it.
    """
    declared = {
        "groups": sorted(me.groups),
        "settings": {
            # Addresses and the like are declared as text, of which their types make more.
            item.settings.__name__: me[item.settings].model_dump(mode="json", warnings=False)
            for item in fleet.capabilities_of(me)
        },
    }
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()


def of_now(build: Build, settings: str) -> Deployed:
    """What this run leaves on a host where it ends now; `settings` is the host's `digest`."""
    return Deployed(*build, who=who(), when=_now(), run=RUN_ID, settings=settings)


def begun_now(build: Build) -> Begun:
    """What this run leaves on a host where it begins now."""
    return Begun(RUN_ID, who(), _now(), build.commit)


def text_of(item: Deployed | Begun) -> str:
    """One line of JSON."""
    schema = {"schema": SCHEMA} if isinstance(item, Deployed) else {}
    return json.dumps({**schema, **asdict(item)})


def remarks(record: Record, build: Build) -> Iterable[str]:
    """What whoever deploys with `build` should know of what was there before."""
    for line in record.unreadable:
        yield f"{line}; a deploy that ends well writes it anew"
    if record.unfinished and not record.at_work:
        begun = record.unfinished
        yield (
            f"the deploy of {begun.who} (run {begun.run}, {begun.since}) began here and did not "
            "end; this one goes on from there"
        )
    if record.deployed and record.deployed.commit and build.commit:
        yield from _of_commits(record.deployed, build.commit, standing(record.deployed.commit))


def _of_commits(deployed: Deployed, own: str, how: Standing) -> Iterable[str]:
    theirs = f"{deployed.commit} by {deployed.who}, {deployed.when}"
    own = own[:12]
    if how == "older":
        yield (
            f"this checkout ({own}) is older than what was deployed here last ({theirs}): what "
            "came since is taken back; pull first, unless that is meant"
        )
    elif how == "apart":
        yield (
            f"this checkout ({own}) and what was deployed here last ({theirs}) are of different "
            "branches: what only the other has is taken back; merge first, unless that is meant"
        )
    elif how == "unknown":
        yield (
            f"this checkout ({own}) does not know the commit that was deployed here last "
            f"({theirs}), which may be newer; fetch first, unless that is meant"
        )


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
