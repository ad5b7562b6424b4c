"""From an inventory to checked settings for every host.

Both a deploy and the compliance checks start here, so what is checked is what was declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pyinfra.api.inventory import Inventory

from fleet.declare import group_data
from fleet.declare.capability import Capability
from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.project import project_of
from fleet.declare.refusals import explain, unknown_keys
from fleet.declare.settings import Settings
from fleet.declare.stores import open_store
from fleet.kit.errors import SettingsError
from fleet.kit.secrets import host_in_store, making_of

_ADDRESS = re.compile("[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?|::1")
# A connector may stand before it, as in `@ssh/gpu1`.
_NAME = re.compile(f"(@[a-z]+(/|$))?({_ADDRESS.pattern})?")

_Settings = TypeVar("_Settings", bound=Settings)


@lru_cache(maxsize=1)
def load_fleet(
    inventory: Inventory,
    capabilities: tuple[Capability, ...],
    file: Path | None = None,
    *,
    deploys: bool = False,
) -> Fleet:
    """Check the whole inventory; once, though every host's deploy asks for it.

    `file` is where it is written; None when it is in no file. Whoever `deploys` makes the secrets
    that the store lacks.

    Raises:
        FleetError: pyinfra's command line runs elsewhere than in the project's directory, or the
            inventory's secrets are in a store that others share.
        SettingsError: anything declared is unknown, of a wrong type or contradictory. Every wrong
            value of every host is listed; without any, every contradiction; without any, every
            stored secret that is refused.
    """
    project = project_of(file)
    problems: list[str] = []
    hosts = []
    for item in inventory:
        data = item.data.dict()  # type: ignore[no-untyped-call]
        if host := _load_host(item.name, item.groups, data, capabilities, problems):
            hosts.append(host)
    problems += _alike_in_stores(hosts)
    problems += _same_machine(inventory)
    if file is not None:
        groups = {*group_names(capabilities), *inventory.groups}
        problems += group_data.problems(file, project, groups)
    _refuse(problems)
    secrets = open_store(file, project)
    secrets.making = making_of(deploys=deploys)
    fleet = Fleet(hosts, capabilities, secrets, project)
    _refuse([line for host in hosts for line in _problems(host, fleet)])
    _refuse(
        line
        for host in hosts
        for item in fleet.capabilities_of(host)
        for line in item.stored_problems(host, fleet)
    )
    return fleet


def group_names(capabilities: Iterable[Capability]) -> tuple[str, ...]:
    """The groups that say what a host runs, each once."""
    return tuple(dict.fromkeys(item.group for item in capabilities if item.group))


def _refuse(problems: Iterable[str]) -> None:
    if problems := list(problems):
        raise SettingsError(problems)


def _load_host(
    name: str,
    groups: Iterable[str],
    data: Mapping[str, Any],
    capabilities: tuple[Capability, ...],
    problems: list[str],
) -> FleetHost | None:
    before = len(problems)
    outside_address = data.get("ssh_hostname") or name
    problems += _misnamed(name, outside_address)
    models = [item.settings for item in capabilities]
    problems += [f"{name}: {text}" for text in unknown_keys(data, models)]

    def build(model: type[_Settings]) -> _Settings | None:
        keys = {model.key(field): field for field in model.model_fields}
        values = {field: data[key] for key, field in keys.items() if key in data}
        try:
            return model(**values)
        except ValidationError as error:
            problems.extend(explain(name, model, values, error))
            return None

    built = [build(model) for model in models]
    if len(problems) > before:
        return None
    settings = [item for item in built if item is not None]
    runs = _running(frozenset(groups), settings, capabilities)
    return FleetHost(name, frozenset(groups), outside_address, settings, runs)


def _misnamed(name: str, outside_address: Any) -> Iterator[str]:
    """Names that would mean something else in nginx's patterns, a certificate or a URL."""
    if not _NAME.fullmatch(name):
        yield (
            f"{name}: not a host's name; write letters, digits, '.', ':', '_' and '-', as in "
            "gpu1.example.internal, and how to reach it as ssh_hostname"
        )
    elif outside_address != name and not (
        isinstance(outside_address, str) and _ADDRESS.fullmatch(outside_address)
    ):
        yield (
            f"{name}: ssh_hostname = {outside_address!r}: neither a host's name nor an IP address; "
            "write one such as gpu1.example.internal"
        )


def _alike_in_stores(hosts: Iterable[FleetHost]) -> Iterator[str]:
    """Hosts whose secrets would be each other's."""
    names: dict[str, str] = {}
    for host in hosts:
        other = names.setdefault(host_in_store(host.name), host.name)
        if other != host.name:
            yield f"{host.name}: has the secrets of {other}, as both names make one; rename it"


def _same_machine(inventory: Inventory) -> Iterator[str]:
    """Hosts that are reached in the same way: each would undo what is declared for the other."""
    if "ssh_hostname" in inventory.get_override_data():  # type: ignore[no-untyped-call]
        # `--data`, for the hosts that `--limit` leaves: the file says nothing of it.
        return
    names: dict[tuple[Any, ...], str] = {}
    for host in inventory:
        # Containers and the like are called by their connector, and have no address.
        if host.name.startswith("@") and not host.name.startswith("@ssh/"):
            continue
        data = host.data.dict()  # type: ignore[no-untyped-call]
        address = _plain_address(str(data.get("ssh_hostname") or host.name.removeprefix("@ssh/")))
        # Behind one address, ports and ways of ssh may lead to several machines.
        way = (address, str(data.get("ssh_port") or 22), str(data.get("ssh_config_file") or ""))
        other = names.setdefault(way, host.name)
        if other != host.name:
            yield (
                f"{host.name}: reached as {address}, and so is {other}: the same machine twice; "
                "declare it once, in all its groups, or correct ssh_hostname"
            )


def _plain_address(text: str) -> str:
    """An address or a name in the one form of all that mean the same."""
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        return text.lower().rstrip(".")


def _running(
    groups: frozenset[str], settings: list[Settings], capabilities: tuple[Capability, ...]
) -> frozenset[type[Settings]]:
    """What a host has: by its groups and switches, and what that needs."""
    values = {type(item): item for item in settings}
    found = {item.settings for item in capabilities if _is_chosen(item, groups, values)}
    while (
        missing := {need for item in capabilities if item.settings in found for need in item.needs}
        - found
    ):
        found |= missing
    return frozenset(found)


def _is_chosen(
    item: Capability, groups: frozenset[str], values: Mapping[type[Settings], Settings]
) -> bool:
    if item.group is None and item.switch is None:
        return True
    switched_on = item.switch is not None and bool(getattr(values[item.settings], item.switch))
    return item.group in groups or switched_on


def _problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    chosen = [item for item in fleet.capabilities_of(host) if item.group or item.switch]
    if not chosen:
        groups = ", ".join(sorted(host.groups)) or "none"
        wanted = " or ".join(group_names(fleet.capabilities))
        switches = " or ".join(
            f"{item.settings.key(item.switch)} = True" for item in fleet.capabilities if item.switch
        )
        yield (
            f"{host.name}: in groups {groups}, but a host needs {wanted}, or {switches}, to have "
            "anything to do; a list that is no group needs a name that begins with _"
        )
    for item in fleet.capabilities_of(host):
        yield from item.problems(host, fleet)
