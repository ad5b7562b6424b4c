"""The lab for the tests of the firewall: a fleet, and containers that somebody else started."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.conftest import BIN, LAB_INVENTORY, ROOT, LabUnderTest

# Debian's Docker and an image of one static program: no registry is asked.
DOCKER = """set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends \
    busybox-static docker.io docker-cli iptables >/dev/null
mkdir -p /tmp/image/bin /tmp/image/www
cp /bin/busybox /tmp/image/bin/
echo hello > /tmp/image/www/index.html
tar -C /tmp/image -c . | docker import - lab/box >/dev/null
docker run -d --restart=always --name web -p 8080:80 -p 8081:80 lab/box \
    /bin/busybox httpd -f -p 80 -h /www >/dev/null
docker network create --subnet 172.31.9.0/24 \
    -o com.docker.network.bridge.name=backend0 backend >/dev/null
docker run -d --restart=always --name inner --network backend --ip 172.31.9.9 lab/box \
    /bin/busybox httpd -f -p 80 -h /www >/dev/null
docker inspect -f '{{.NetworkSettings.IPAddress}}' web
"""

# A container that publishes nothing, on a network whose bridge is called backend0.
INNER = "172.31.9.9"


class Firewalled:
    """The lab, and what of it this file looks at: gpu1 has a container that publishes ports."""

    def __init__(self, lab: LabUnderTest, container: str) -> None:
        self.lab = lab
        self.container = container

    def addresses(self, *names: str) -> list[str]:
        hosts = self.lab.state["hosts"]
        return [hosts[name][family] for name in names for family in ("address", "address6")]

    def scan(self, *names: str) -> dict[str, list[int]]:
        """Every TCP port of the hosts, over both families, from a host outside the fleet."""
        scanner = [
            BIN / "python",
            "-m",
            "fleet.firewall.scan",
            "--rate",
            "100000",
            "--timeout",
            "0.6",
        ]
        result = self.lab.command("exec-foreign", *map(str, scanner), *self.addresses(*names))
        found: dict[str, list[int]] = json.loads(result.stdout)
        return found

    def foreign_get(self, address: str, port: int) -> str:
        """What a foreign host is answered to GET /; empty when there is no connection."""
        url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
        command = f"curl -s --max-time 2 '{url}'; true"
        return self.lab.command("exec-foreign", "sh", "-c", command).stdout.strip()

    def from_container(self, url: str) -> str:
        """What another container on gpu1 is answered; empty when there is no connection."""
        return self.lab.ssh(
            "gpu1",
            f"docker run --rm lab/box /bin/busybox wget -T 2 -qO- {url} 2>/dev/null; true",
        )

    def rules(self) -> tuple[str, str]:
        """The live table, and the file that is loaded at boot."""
        live = self.lab.ssh("gpu1", "nft --stateless list table inet llm_fleet")
        return live, self.lab.ssh("gpu1", "cat /etc/llm-fleet/firewall.nft")

    def verify(self, which: str) -> subprocess.CompletedProcess[str]:
        """Run those compliance checks whose names have `which`, as pytest's -k has it."""
        return subprocess.run(
            [
                BIN / "pytest", "tests/compliance/test_firewall.py", "-k", which,
                "--inventory", LAB_INVENTORY, "-q", "-p", "no:cacheprovider",
            ],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
            env={"LLM_FLEET_LAB_ID": self.lab.id, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        )  # fmt: skip

    def reboot(self) -> None:
        started = self.lab.ssh("gpu1", "stat -c %Y /proc/1")
        self.lab.ssh("gpu1", "systemctl reboot", check=False)
        self.wait_for_boot(started)

    def wait_for_boot(self, started: str) -> None:
        deadline = time.monotonic() + 60
        while self.lab.ssh("gpu1", "stat -c %Y /proc/1", check=False) in ("", started):
            assert time.monotonic() < deadline, "gpu1 did not come back"
            time.sleep(0.5)
        self.lab.ssh("gpu1", "systemctl is-system-running --wait", check=False)


def route_to_containers(lab: LabUnderTest, via: str) -> None:
    """A neighbour that knows where the containers are, and needs no published port."""
    for network in ("172.17.0.0/16", "172.31.9.0/24"):
        lab.command("exec-foreign", "ip", "route", "replace", network, "via", via)


# What Oracle's images have, and the same thing in other words.
ORACLE = """
iptables -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
iptables -A INPUT -p icmp -j ACCEPT
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited
iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited
"""
LEGACY = """
iptables-legacy -N mine
iptables-legacy -A INPUT -p tcp -j mine
iptables-legacy -A mine -p tcp --dport 22 -j RETURN
iptables-legacy -A mine -j DROP
"""

# gpu1 is a VPN's end, as somebody set it up: it waits for its peer on UDP 51820 and learns where
# that is. gpu2 is the peer, and what it lets through from the lab comes out of the tunnel as its
# own. The kernel's WireGuard and this one look alike: a device, and a port that waits.
_VPN = """set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends wireguard-go wireguard-tools >/dev/null
umask 077
[ -e /root/key ] || wg genkey > /root/key
wireguard-go wg0 >/dev/null 2>&1
ip address add 10.99.9.$number/24 dev wg0
ip link set wg0 up
wg set wg0 private-key /root/key $port
wg pubkey < /root/key
"""
_PEER = """set -e
sysctl -qw net.ipv4.ip_forward=1
nft 'table ip vpn { chain c { type nat hook postrouting priority 100; oifname wg0 masquerade; }; }'
nft insert rule inet llm_fleet forward iifname host0 oifname wg0 accept
"""
VPN_ADDRESS = "10.99.9.1"


@contextmanager
def through_vpn(walls: Firewalled, folder: Path) -> Iterator[tuple[str, ...]]:
    """Options of a deploy that reaches gpu1 through the VPN, which is up since before its rules."""
    lab = walls.lab
    address, peer = walls.addresses("gpu1")[0], walls.addresses("gpu2")[0]
    keys = {
        "gpu1": lab.ssh("gpu1", f"number=1 port='listen-port 51820'; {_VPN}"),
        "gpu2": lab.ssh("gpu2", f"number=2 port=; {_VPN}"),
    }
    lab.ssh("gpu1", f"wg set wg0 peer {keys['gpu2']} allowed-ips 10.99.9.2/32")
    lab.ssh("gpu1", "nft insert rule inet llm_fleet input udp dport 51820 accept")
    where = f"endpoint {address}:51820 persistent-keepalive 1 allowed-ips {VPN_ADDRESS}/32"
    lab.ssh("gpu2", f"{_PEER}\nwg set wg0 peer {keys['gpu1']} {where}")
    known = folder / "known_hosts"
    known.write_text(
        "".join(
            f"{VPN_ADDRESS} {line.split(maxsplit=1)[1]}\n"
            for line in Path(lab.state["known_hosts"]).read_text().splitlines()
            if address in line
        )
    )
    way = ["ip", "route", "replace", f"{VPN_ADDRESS}/32", "via", peer]
    subprocess.run(way, check=True)
    try:
        yield (
            "--limit", "gpu1", "--data", f"ssh_hostname={VPN_ADDRESS}",
            "--data", f"ssh_known_hosts_file={known}", "--data", "firewall_confirm_within=8s",
        )  # fmt: skip
    finally:
        subprocess.run(["ip", "route", "delete", f"{VPN_ADDRESS}/32"], check=True)
        for host in ("gpu1", "gpu2"):
            lab.ssh(host, "ip link delete wg0; nft delete table ip vpn 2>/dev/null; true")
        lab.ssh("gpu2", "systemctl reload llm-fleet-firewall")
