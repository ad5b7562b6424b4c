"""From an inventory to checked settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleet.capabilities import CAPABILITIES
from fleet.declare.load import group_names, load_fleet
from fleet.kit.errors import SettingsError
from tests.fleets import (
    ALTERNATIVE,
    BOX,
    EDGE,
    GPU,
    Hosts,
    fleet_of,
    inventory_of,
)
from tests.unit.refusals import assert_refused, pair, problems

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "host in no group": (
        {**pair(), "db": ("databases", {})},
        "db",
        ["in groups databases", "needs gpu or ", "a name that begins with _"],
    ),
    **{
        f"host called {name!r}": (
            {**pair(), name: ("gpu", {"private_address": "10.0.0.12", "ollama_listen": "private"})},
            name,
            ["not a host's name", "as ssh_hostname"],
        )
        for name in ("gpu1$", "a b", "gpu(1", "gpu/../x", "g;x", "-gpu", "gpu{1}", "\u00e9")
    },
    "two hosts of one name in the store": (
        {**pair(), "@ssh/gpu1": ("gpu", {"ssh_port": 2222}), "ssh-gpu1": ("gpu", {})},
        "ssh-gpu1",
        ["the secrets of @ssh/gpu1"],
    ),
    "one machine by two names": (
        {**pair({"ssh_hostname": "10.9.0.1"}), "gpu2": ("gpu", {"ssh_hostname": "10.9.0.1"})},
        "gpu2",
        ["reached as 10.9.0.1, and so is gpu1", "correct ssh_hostname"],
    ),
    "one machine by its name and its address": (
        {**pair(), "10.9.0.1": ("gpu", {}), "gpu2": ("gpu", {"ssh_hostname": "10.9.0.1"})},
        "gpu2",
        ["so is 10.9.0.1"],
    ),
    "one machine, written in two ways": (
        {"fd00::9": ("gpu", {}), "gpu2": ("gpu", {"ssh_hostname": "FD00:0::9"})},
        "gpu2",
        ["reached as fd00::9"],
    ),
    "one machine in capitals": (
        {"gpu1": ("gpu", {}), "GPU1": ("gpu", {})},
        "GPU1",
        ["reached as gpu1, and so is gpu1", "the same machine twice"],
    ),
    "one machine by its connector": (
        {"gpu1": ("gpu", {}), "@ssh/gpu1": ("gpu", {})},
        "@ssh/gpu1",
        ["so is gpu1"],
    ),
    "address of no form": (
        pair({"ssh_hostname": "gpu1 -oProxyCommand=id"}),
        "gpu1",
        ["ssh_hostname = 'gpu1 -oProxyCommand=id'", "gpu1.example.internal"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


@pytest.mark.parametrize(
    "hosts",
    [
        {"gpu1": ("gpu", {})},
        {"box": BOX},
        pair(),
        ALTERNATIVE,
    ],
    ids=["one GPU host, nothing declared", "both roles on one", "two hosts", "alternative"],
)
def test_sound_fleets_are_accepted(hosts: Hosts) -> None:
    assert [host.name for host in fleet_of(hosts)] == list(hosts)


def test_alternative_fleet_has_every_capability() -> None:
    """... so that whoever adds one declares it there, for all that is tested with that fleet."""
    fleet = fleet_of(ALTERNATIVE)
    assert [item.settings for item in CAPABILITIES if not fleet.running(item.settings)] == []
    assert set(group_names(CAPABILITIES)) <= {group for host in fleet for group in host.groups}


def test_alternative_fleet_differs_in_every_setting() -> None:
    """... or a setting could be without effect and no rendering would show it."""
    fleet = fleet_of(ALTERNATIVE)
    same = [
        model.key(name)
        for model in (item.settings for item in CAPABILITIES)
        for name, field in model.model_fields.items()
        if all(getattr(host[model], name) == field.default for host in fleet.running(model))
    ]
    # Off, they leave nothing to plan, and only NVIDIA's and Docker's repositories have versions to
    # choose from; Dify's plugin comes from a package, GPUs are declared by their number, and a
    # token is in a store. Tests of their own cover them.
    assert same == [
        "firewall_backend",
        "ollama_instances",
        "ollama_image",
        "weights_token",
        "vllm_runtime",
        "vllm_lock",
        "gateway_tls_certificate",
        "gpus",
        "driver_source",
        "docker_source",
        "toolkit_enabled",
        "dify_plugin",
    ]


def test_all_problems_of_all_hosts_at_once() -> None:
    """Nobody mends one line, runs again, and is told of the next."""
    lines = problems(
        pair({"ollama_prot": 1, "ollama_port": "x", "models_wait": 3}, {"gateway_max_body": 0})
    )
    assert sorted(re.split(r"[ :=]+", line)[1] for line in lines) == [
        "gateway_max_body",
        "models_wait",
        "ollama_port",
        "ollama_prot",
    ]
    assert {line.split(":")[0] for line in lines} == {"gpu1", "edge"}


def test_relations_of_all_hosts_at_once() -> None:
    hosts = {
        "gpu1": ("gpu", {"ollama_version": "9.9.9"}),
        "gpu2": ("gpu", {"ollama_listen": "private"}),
        "edge": ("gateway", {**EDGE[1], "gateway_keys": []}),
    }
    assert [line.split(" = ")[0] for line in problems(hosts)] == [
        "gpu1: ollama_version",
        "gpu2: ollama_listen",
        "edge: gateway_keys",
        "gpu1: ollama_listen",
    ]


def test_error_says_that_nothing_was_changed() -> None:
    with pytest.raises(SettingsError, match=r"^2 settings refused, no host was changed:\n  - "):
        fleet_of(pair({"ollama_port": 0, "ssh_port": 0}))


def test_each_inventory_has_its_own_secrets(tmp_path: Path) -> None:
    for name in ("production", "staging"):
        file = tmp_path / "inventory" / name / "hosts.py"
        fleet = load_fleet(inventory_of(pair()), CAPABILITIES, file)
        assert fleet.secrets.root == tmp_path / ".secrets" / name / "hosts"


@pytest.mark.parametrize("name", ["gpu-1", "gpu1.site_a", "10.0.0.11", "fd00::11", "@ssh/gpu1"])
def test_names_of_hosts(name: str) -> None:
    assert [host.name for host in fleet_of({name: ("gpu", {})})] == [name]


@pytest.mark.parametrize(
    "hosts",
    [
        # One address leads to two machines behind it.
        {
            "a": ("gpu", {"ssh_hostname": "203.0.113.1", "ssh_port": 2201}),
            "b": ("gpu", {"ssh_hostname": "203.0.113.1", "ssh_port": 2202}),
        },
        {
            "a": ("gpu", {"ssh_hostname": "10.9.0.1", "ssh_config_file": "north"}),
            "b": ("gpu", {"ssh_hostname": "10.9.0.1", "ssh_config_file": "south"}),
        },
        {"@docker/a": ("gpu", {}), "@docker/b": ("gpu", {}), "a": ("gpu", {})},
    ],
)
def test_other_ways_lead_to_other_machines(hosts: Hosts) -> None:
    assert len(list(fleet_of(hosts))) == len(hosts)


def test_the_command_line_may_lead_to_one_host_by_another_way(own_secrets: Path) -> None:
    """`--limit gpu1 --data ssh_hostname=...`: through a tunnel, for once; it is told all hosts."""
    inventory = inventory_of({"gpu1": GPU, "edge": EDGE})
    inventory.override_data = {"ssh_hostname": "10.9.0.1"}
    assert len(list(load_fleet(inventory, CAPABILITIES))) == 2
