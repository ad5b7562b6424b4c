"""A bare host has what Debian calls essential, systemd and sshd: the rest is installed before use.

The programs for hosts, the units and the commands of the deploy are searched for the tools of
other packages; which package brings each is written here, and nowhere which step needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pyinfra.api import StringCommand

from fleet.driver.facts import Gpu, GpuHardware, GpuHardwareFact
from tests.fleets import BOX, EDGE, GPU, Hosts, alternative
from tests.plan.simulation import Answers, Plan, bare, plan

# A tool, and the packages of which any brings it.
TOOLS = {
    "certbot": {"certbot"},
    "curl": {"curl"},
    "docker": {"docker-ce-cli", "docker-cli", "docker.io"},
    "gpg": {"gpg"},
    "jq": {"jq"},
    "logrotate": {"logrotate"},
    "nft": {"nftables"},
    "nginx": {"nginx"},
    "nvidia-ctk": {"nvidia-container-toolkit"},
    "openssl": {"openssl"},
    "python3": {"python3"},
    "sysctl": {"procps"},
    "zstd": {"zstd"},
}
# At the start of a command, or by the whole path.
USED = re.compile(
    rf"(?:^|[;|&({{] ?|[\"']|/usr/s?bin/|\b(?:then|else|do|until|if) )({'|'.join(TOOLS)}) "
)
ENDS_WITH = re.compile(r"\.tar\.(zst)\b")


def used_by(text: str) -> set[str]:
    found = {match[1] for line in text.splitlines() for match in USED.finditer(line)}
    return found | ({"zstd"} if ENDS_WITH.search(text) else set())


def commands(planned: Plan, host: str) -> Iterator[tuple[str, str]]:
    """Each command of a host, and what is written to its standard input."""
    for command in planned.commands(host):
        if isinstance(command, StringCommand):
            stdin = command.connector_arguments.get("_stdin") or []
            yield command.get_raw_value(), "\n".join(stdin)


def missing_on(planned: Plan, host: str) -> list[str]:
    """The commands that use what no command before them installed, or that starts it by a file."""
    there: set[str] = set()
    waiting: dict[str, str] = {}  # tool to the file that uses it: units start later
    found = []
    for line, stdin in commands(planned, host):
        if install := re.search(r"apt-get install .*--no-install-recommends (.*?)( ;|$)", line):
            there |= {word.strip("'").partition("=")[0] for word in install[1].split()}
            continue
        tools = used_by(line)
        if " -s -- " not in line:
            waiting |= dict.fromkeys(used_by(stdin), line)
        if re.search(r"systemctl (re)?start|systemd-run|enable --now", line):
            tools |= set(waiting)
        found += [f"{tool}: {waiting.get(tool, line)}" for tool in tools if not TOOLS[tool] & there]
    return found


HOSTS: dict[str, Hosts] = {
    "GPU host and gateway": {"gpu1": GPU, "edge": EDGE},
    "both on one": {"box": (BOX[0], {**BOX[1], "docker_enabled": True})},
    "containers": {
        "box": ("containers", {"docker_enabled": True, "docker_source": "distribution"})
    },
    "alternative": alternative("gpu1", "edge", "box"),
}


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("hosts", HOSTS.values(), ids=HOSTS)
def test_every_tool_is_installed_before_it_is_used(hosts: Hosts, gpus: int) -> None:
    cards = {GpuHardwareFact: lambda: GpuHardware((Gpu("0000:17:00.0", 0x2330),) * gpus)}
    answers: dict[str, Answers] = {name: bare() | cards for name in hosts}
    planned = plan(hosts, answers)
    assert {name: missing_on(planned, name) for name in hosts} == {name: [] for name in hosts}
