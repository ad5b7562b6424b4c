"""A host and a caller, each a network namespace of its own, in which rules are real."""

from __future__ import annotations

import subprocess
from pathlib import Path

# The host has eth0 (10.0.0.11) with the caller (10.0.0.2) at its other end.
_SETUP = """
set -e
unshare --net sleep 60 & caller=$!
trap 'kill $caller' EXIT
until [ "$(readlink /proc/$caller/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link set lo up
ip link add eth0 type veth peer name eth0 netns $caller
ip addr add 10.0.0.11/24 dev eth0
ip link set eth0 up
on_caller() { nsenter --net=/proc/$caller/ns/net "$@"; }
on_caller ip link set lo up
on_caller ip link set eth0 up
on_caller ip addr add 10.0.0.2/24 dev eth0
on_caller ip addr add 1.1.1.1/32 dev eth0
ip route add default via 10.0.0.2
"""


def run(script: str) -> list[str]:
    """The lines that a shell `script` prints on the host; `on_caller` runs words on the caller."""
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "bash", "-c", _SETUP + script],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


PROGRAMS = Path(__file__).resolve().parents[3] / "fleet/firewall/on_host"
