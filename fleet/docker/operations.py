"""Docker's configuration, kept by two: what is declared here, and an operator's own keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.docker.facts import DockerInfo, GroupMembers, OwnedFile
from fleet.docker.merge import Path, leaves, merge
from fleet.docker.paths import DOCKER_CONFIG, DOCKER_OWNED, DOCKER_ROOT, DOCKER_UNIT
from fleet.kit.commands import Commands, or_journal
from fleet.kit.facts.places import Place, Places
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.on_host.outside import FormError, parsed
from fleet.kit.refuse import refusal

# By the unit's own command line too: a key that is also a flag there keeps the daemon from
# starting. Of its variables ($DOCKER_OPTS) only the shell that starts it knows the values.
VALIDATE = StringCommand(
    f"set -- $(systemctl show -p ExecStart --value {DOCKER_UNIT} |",
    r"sed -n 's/.*argv\[\]=\([^;]*\) ;.*/\1/p' | sed 's/\$[A-Z_]*//g');",
    '"$@" --validate --config-file daemon.json',
)


# What each driver takes in log-opts besides what all do. `dockerd --validate` does not look at
# them, and the daemon does not start with one that its driver does not know.
_TEXT_OPTS = frozenset({"env", "env-regex", "labels", "labels-regex", "tag"})
_FILE_OPTS = frozenset({"compress", "max-file", "max-size"})
_LOG_OPTS = {
    "local": _FILE_OPTS,
    "json-file": _FILE_OPTS | _TEXT_OPTS,
    "journald": _TEXT_OPTS,
}
_COMMON_LOG_OPTS = frozenset({"max-buffer-size", "mode"})


class RefusedError(ValueError):
    """A configuration that must not be touched; the message says what to do."""


@operation()
def install_daemon_config(declared: Mapping[str, Any]) -> Commands:
    """Have the `declared` values in daemon.json, and those that were declared before no more.

    An operator's own keys stay. What the daemon refuses, or what would lose containers, is refused
    before the file is touched. Which keys are ours is recorded on the host.
    """
    try:
        current, owned = read_owned(DOCKER_OWNED)
        wanted = merge(current, owned, declared)
        refuse_exposed(wanted)
        refuse_unknown_log_opts(wanted)
        _refuse_lost_containers(wanted, host.get_fact(DockerInfo))
    except RefusedError as error:
        yield refusal(f"{host.name}: {error}")
        return
    ours = {path for path, _ in leaves(declared)}
    yield from install_owned(DOCKER_OWNED, current, wanted, owned, ours)


def install_owned(
    record: str,
    current: Mapping[str, Any],
    wanted: Mapping[str, Any],
    before: set[Path],
    ours: set[Path],
) -> Commands:
    """Have `wanted` in daemon.json in place of `current`, and the paths of `ours` in `record`.

    `before` is what was recorded until now. A run that dies in between leaves a record of at least
    what is ours, so that nothing of it can ever pass for an operator's. A file that says the same
    in other words, as another tool writes it, is left alone.
    """
    yield from install_files._inner(files=[_recorded(record, before | ours)])
    if wanted != current:
        text = json.dumps(wanted, indent=2) + "\n"
        yield from install_files._inner(files=[ManagedFile(DOCKER_CONFIG, text)], check=VALIDATE)
    if before - ours:
        yield from install_files._inner(files=[_recorded(record, ours)])


def release_keys(record: str) -> Commands:
    """Have none of the values in daemon.json that `record` calls ours; an operator's own stay.

    Where its containers are is kept: Docker would start without them. A daemon that runs is left
    alone, as are containers. Must be part of an operation.
    """
    try:
        current, owned = read_owned(record)
    except RefusedError as error:
        yield refusal(f"{host.name}: {error}")
        return
    wanted = merge(current, owned - {("data-root",)}, {})
    if wanted == current:
        return
    if not wanted:
        yield StringCommand("rm -f", DOCKER_CONFIG)
        return
    text = json.dumps(wanted, indent=2) + "\n"
    judged = StringCommand("! command -v dockerd >/dev/null || {", VALIDATE, "; }")
    yield from install_files._inner(files=[ManagedFile(DOCKER_CONFIG, text)], check=judged)


def read_owned(record: str) -> tuple[dict[str, Any], set[Path]]:
    """The object in daemon.json, and the paths in it that `record` calls ours.

    Raises:
        RefusedError: one of them cannot be read as what it should be.
    """
    text = host.get_fact(OwnedFile, path=DOCKER_CONFIG, record=record)
    owned = _object(record, text.record).get("paths", [])
    return _object(DOCKER_CONFIG, text.text), {tuple(path) for path in owned}


def _object(path: str, text: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = parsed(text or "{}", {"paths?": [[str]]}, path)
    except FormError as error:
        raise RefusedError(f"{error}; correct it or move it away") from None
    return value


def _recorded(path: str, paths: Iterable[Path]) -> ManagedFile:
    return ManagedFile(
        path, json.dumps({"paths": sorted(list(item) for item in paths)}, indent=2) + "\n"
    )


def refuse_exposed(config: Mapping[str, Any]) -> None:
    """Refuse what opens the daemon to the network, or takes the firewall's hold on containers.

    Raises:
        RefusedError: with the key, its value and what to do.
    """
    for address in config.get("hosts") or []:
        if str(address).startswith("tcp:"):
            raise RefusedError(
                f"{DOCKER_CONFIG}: hosts = {address}: whoever reaches it is root here; remove it, "
                "and use ssh (DOCKER_HOST=ssh://...) instead"
            )
    for key in ("iptables", "ip6tables"):
        if config.get(key) is False:
            raise RefusedError(
                f"{DOCKER_CONFIG}: {key} = false: containers would have no network of their own "
                "and the firewall could not tell their ports; remove it"
            )


def refuse_unknown_log_opts(config: Mapping[str, Any]) -> None:
    """Refuse an operator's log options that the declared driver would not start with.

    Raises:
        RefusedError: with the options, the driver and what to do.
    """
    driver = config["log-driver"]
    unknown = sorted(set(config.get("log-opts", {})) - _LOG_OPTS[driver] - _COMMON_LOG_OPTS)
    if unknown:
        fitting = [name for name, known in _LOG_OPTS.items() if set(unknown) <= known]
        raise RefusedError(
            f"{DOCKER_CONFIG}: log-opts: {', '.join(unknown)}: Docker does not start with it under "
            f"docker_log_driver = {driver!r}; remove it"
            + "".join(f", or set docker_log_driver = {name!r}" for name in fitting)
        )


def _refuse_lost_containers(config: Mapping[str, Any], info: dict[str, Any]) -> None:
    root = config.get("data-root", DOCKER_ROOT)
    now = info.get("DockerRootDir", root)
    places: dict[str, Place] = host.get_fact(Places, paths=[root, now])
    # A link leads to the same containers.
    if places[now].resolved != places[root].resolved and info.get("Containers"):
        raise RefusedError(
            f"docker_data_root: {info['Containers']} containers are in {now}, and {root} would "
            f"start without them; stop Docker, move {now} to {root}, and run the deploy again"
        )


@operation()
def keep_containers() -> Commands:
    """Have a running daemon let go of its containers before it is restarted.

    A daemon that runs without live-restore would take them down; it learns it by a reload.
    """
    info = host.get_fact(DockerInfo)
    if not info or info.get("LiveRestoreEnabled"):
        return
    learnt = "docker info --format '{{.LiveRestoreEnabled}}' | grep -qx true"
    yield or_journal(
        StringCommand(
            "systemctl reload",
            DOCKER_UNIT,
            f"&& n=0; until {learnt}; do n=$((n + 1)); [ $n -lt 20 ] || exit 1; sleep 0.5; done",
        ),
        DOCKER_UNIT,
    )


@operation()
def set_members(group: str, users: list[str]) -> Commands:
    """Have exactly `users` in `group`, which must exist when this runs."""
    if host.get_fact(GroupMembers, group=group) == sorted(users):
        host.noop(f"group {group} has {', '.join(users) or 'no members'}")
        return
    if host.get_fact(GroupMembers, group=group) is None and not users:
        return
    yield StringCommand("gpasswd -M", QuoteString(",".join(users)), QuoteString(group))
