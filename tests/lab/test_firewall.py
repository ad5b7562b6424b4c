"""Walls that hold against Docker, IPv6, other rulesets and the operator's own mistakes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.conftest import BIN, LAB_INVENTORY, ROOT, LabUnderTest
from tests.lab.firewalled import (
    DOCKER,
    INNER,
    LEGACY,
    ORACLE,
    VPN_ADDRESS,
    Firewalled,
    route_to_containers,
    through_vpn,
)

_APPLY = "Apply the ruleset"
_NF_LOG = Path("/proc/sys/net/netfilter/nf_log_all_netns")

# What the host's own address translation makes of the controller's address: sshd, and so the
# deploy's own check, sees 10.99.0.1; the input chain, which comes before it, the real one.
_MASQUERADE = (
    "nft 'table ip disguise { chain c { type nat hook input priority 100; "
    "tcp dport 22 snat to 10.99.0.1; }; }'"
)
_SHUT_OUT = ("--data", 'firewall_ssh_from=["10.99.0.1/32"]')


@pytest.fixture(scope="module")
def walls(bare_lab: LabUnderTest) -> Firewalled:
    """The deployed fleet; what the tests below find closed was seen open before."""
    container = bare_lab.ssh("gpu1", DOCKER)
    walls = Firewalled(bare_lab, container)
    address, address6 = walls.addresses("gpu1")
    assert walls.foreign_get(address, 8080) == "hello"
    assert walls.foreign_get(address6, 8080) == "hello"
    route_to_containers(bare_lab, address)
    assert walls.foreign_get(container, 80) == "hello"
    assert walls.foreign_get(INNER, 80) == "hello"
    bare_lab.deploy()
    return walls


@pytest.fixture
def healed(walls: Firewalled) -> Iterator[Firewalled]:
    """The fleet for a test that changes it; a deploy must bring it back and then have no work."""
    yield walls
    walls.lab.deploy("--limit", "gpu1")
    assert walls.lab.deploy("--limit", "gpu1") == {}


def test_only_declared_ports_are_open(walls: Firewalled) -> None:
    hosts = walls.lab.state["hosts"]
    expected = {address: [22] for address in walls.addresses("gpu1", "gpu2", "edge")}
    expected[hosts["edge"]["address"]] = [22, 8434]
    assert walls.scan("gpu1", "gpu2", "edge") == expected
    # The container serves all the while.
    assert walls.lab.ssh("gpu1", "curl -s http://127.0.0.1:8080/") == "hello"


def test_still_closed_when_docker_or_nftables_starts_anew(walls: Firewalled) -> None:
    """Debian's nftables.service flushes everybody's rules when it starts, reloads and stops."""
    walls.lab.ssh("gpu1", "systemctl start nftables")
    try:
        for event in ("restart docker", "restart nftables", "reload nftables"):
            walls.lab.ssh("gpu1", f"systemctl {event}")
            assert set(map(tuple, walls.scan("gpu1").values())) == {(22,)}, event
        walls.lab.ssh("gpu1", "systemctl stop nftables")
        assert walls.lab.deploy("--limit", "gpu1") == {}
    finally:
        # Docker's own rules went with those of everybody else.
        walls.lab.ssh("gpu1", "systemctl stop nftables; systemctl restart docker")


def test_still_closed_after_a_reboot(walls: Firewalled) -> None:
    walls.reboot()
    assert walls.lab.ssh("gpu1", "curl -s http://127.0.0.1:8080/") == "hello"
    assert set(map(tuple, walls.scan("gpu1").values())) == {(22,)}


def test_container_cannot_be_reached_past_its_published_port(walls: Firewalled) -> None:
    assert walls.foreign_get(walls.container, 80) == ""


def test_container_on_a_bridge_of_another_name_is_closed_unless_declared(
    healed: Firewalled,
) -> None:
    """Neither its own declared interface nor anything else opens it to the neighbours."""
    upstream = healed.lab.state["upstream"]["url"].rpartition(":")[2]
    fetch = f"docker exec inner /bin/busybox nc -w 2 {_upstream(healed)} {upstream} </dev/null"
    reaches = f"{fetch} && echo out; true"
    assert healed.foreign_get(INNER, 80) == ""
    assert healed.lab.ssh("gpu1", reaches) == ""
    declared = ["docker0", "br-*", "backend0"]
    container = ("--data", f"firewall_container_interfaces={json.dumps(declared)}")
    healed.lab.deploy("--limit", "gpu1", *container)
    assert healed.foreign_get(INNER, 80) == ""
    assert healed.lab.ssh("gpu1", reaches) == "out"
    way = json.dumps([{"incoming": "host0", "outgoing": "backend0"}])
    healed.lab.deploy("--limit", "gpu1", "--data", f"firewall_forward={way}")
    assert healed.foreign_get(INNER, 80) == "hello"
    assert healed.foreign_get(healed.container, 80) == ""


def _upstream(walls: Firewalled) -> str:
    return walls.lab.ssh("gpu1", "getent ahostsv4 upstream.lab | cut -d' ' -f1 | head -1")


def test_containers_reach_each_other_and_the_world(walls: Firewalled) -> None:
    assert walls.from_container(f"http://{walls.container}/") == "hello"
    upstream = walls.lab.state["upstream"]["url"]
    address = walls.lab.ssh("gpu1", "getent ahostsv4 upstream.lab | cut -d' ' -f1 | head -1")
    url = upstream.replace("upstream.lab", address) + "/v2/"
    status = f"docker run --rm lab/box /bin/busybox wget -T 2 -S -O- {url} 2>&1 | grep -c HTTP/"
    assert walls.lab.ssh("gpu1", status) == "1"


def test_errors_and_echo_get_through(walls: Firewalled) -> None:
    for address in walls.addresses("gpu1"):
        walls.lab.ssh("gpu2", f"ping -c1 -W2 {address}")


def test_ports_are_opened_by_declaring_them(healed: Firewalled) -> None:
    """A published one to everybody, over both families; a service of the host to its containers."""
    address, address6 = healed.addresses("gpu1")
    ollama = f"http://{address}:11434/api/version"
    assert healed.from_container(ollama) == ""
    healed.lab.deploy(
        "--limit", "gpu1",
        "--data", "firewall_open_tcp=[8080]",
        "--data", "firewall_open_to_containers=[11434]",
    )  # fmt: skip
    assert healed.foreign_get(address, 8080) == "hello"
    assert healed.foreign_get(address6, 8080) == "hello"
    assert healed.foreign_get(address, 8081) == ""
    assert "version" in healed.from_container(ollama)
    assert healed.scan("gpu1") == {address: [22, 8080], address6: [22, 8080]}


def test_filtering_elsewhere_leaves_nothing_and_is_still_checked(healed: Firewalled) -> None:
    tables = "nft list tables | grep -v llm_fleet"
    before = healed.lab.ssh("gpu1", tables)
    nothing = ("--limit", "gpu1", "--data", "firewall_backend=none")
    assert healed.lab.deploy(*nothing) != {}
    assert healed.lab.deploy(*nothing) == {}
    assert healed.lab.ssh("gpu1", tables) == before
    assert healed.lab.ssh("gpu1", "nft list tables | grep -c llm_fleet; true") == "0"
    assert (
        healed.lab.ssh("gpu1", "ls /etc/llm-fleet /etc/systemd/system | grep -c firewall; true")
        == "0"
    )
    checks = healed.verify("undeclared and gpu1")
    assert "No TCP port but the declared ones" in checks.stdout
    assert "[8080, 8081" in checks.stdout


def test_drops_are_logged_but_not_all(walls: Firewalled) -> None:
    """Twenty at once and ten a minute; the kernel tells of hosts in namespaces when asked to."""
    before = _NF_LOG.read_text()
    mark = f"firewall test {time.time()}"
    _NF_LOG.write_text("1")
    try:
        Path("/dev/kmsg").write_text(mark)
        address = walls.addresses("gpu1")[0]
        probe = (
            "import socket\n"
            "for port in range(20000, 20300):\n"
            "    s = socket.socket(); s.setblocking(False)\n"
            f"    s.connect_ex(('{address}', port)); s.close()\n"
        )
        walls.lab.command("exec-foreign", "python3", "-c", probe)
        time.sleep(0.5)
        log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    finally:
        _NF_LOG.write_text(before)
    # The kernel's log is of every lab on this machine.
    source = walls.lab.state["foreign"]["address"]
    lines = [
        line
        for line in log.split(mark)[1].splitlines()
        if "llm-fleet drop:" in line and f"SRC={source} " in line
    ]
    assert 5 <= len(lines) <= 25
    assert all("DPT=20" in line for line in lines)


def test_broken_ruleset_leaves_ssh_alone(healed: Firewalled) -> None:
    """At boot, or whenever there is nothing better: the unit says so, and so does verify."""
    kept = "/etc/llm-fleet/firewall.nft"
    address, address6 = healed.addresses("gpu1")
    closed = {address: [22], address6: [22]}
    rules = healed.rules()[0]
    healed.lab.ssh("gpu1", f"cp {kept} /root/; echo garbage > {kept}")
    assert healed.lab.ssh("gpu1", "systemctl reload llm-fleet-firewall; echo $?") == "1"
    assert healed.rules()[0] == rules, "what was loaded is better than SSH alone"
    for broken in (f"rm {kept}", f": > {kept}", f"echo 'table inet llm_fleet {{ }}' > {kept}"):
        healed.lab.ssh(
            "gpu1",
            f"{broken}; nft delete table inet llm_fleet; systemctl restart llm-fleet-firewall",
            check=False,
        )
        assert healed.scan("gpu1") == closed, broken
        assert healed.foreign_get(healed.container, 80) == "", broken
    healed.lab.ssh("gpu1", f"head -c 900 /root/firewall.nft > {kept}")
    healed.reboot()
    assert healed.lab.ssh("gpu1", "systemctl is-failed llm-fleet-firewall") == "failed"
    assert healed.scan("gpu1") == closed
    checks = healed.verify("ruleset and gpu1")
    assert checks.returncode == 1
    assert "1 failed" in checks.stdout
    healed.lab.deploy("--limit", "gpu1")
    assert healed.verify("ruleset and gpu1").returncode == 0


def test_local_users_of_a_gateway_do_not_reach_the_servers(walls: Firewalled) -> None:
    server = walls.addresses("gpu1")[0]
    call = f"curl -s -m 5 http://{server}:11434/api/version; true"
    for account, answered in (("www-data", True), ("nobody", False), ("ops", False)):
        said = walls.lab.ssh("edge", f"setpriv --reuid {account} --clear-groups {call}")
        assert ("version" in said) == answered, account
    assert "version" in walls.lab.ssh("edge", call), "the deploy's own account"
    assert walls.verify("account and edge").returncode == 0
    walls.lab.ssh("edge", "nft flush chain inet llm_fleet output")
    try:
        checks = walls.verify("account and edge")
        assert checks.returncode == 1
        assert "nobody, gpu1" in checks.stdout
    finally:
        walls.lab.ssh("edge", "systemctl reload llm-fleet-firewall")


def test_gateway_with_two_addresses_calls_from_the_declared_one(walls: Firewalled) -> None:
    """The other one is what its host would call from."""
    subnet = walls.lab.ssh("edge", "ip -o -4 route show dev host0 scope link | cut -d' ' -f1")
    other = subnet.replace(".0/24", ".99")
    own, server = walls.addresses("edge")[0], walls.addresses("gpu1")[0]
    walls.lab.ssh(
        "edge",
        f"ip address add {other}/24 dev host0; ip route change {subnet} dev host0 src {other}",
    )
    try:
        assert other in walls.lab.ssh("edge", f"ip route get {server}")
        key = walls.lab.fleet("key", "show", LAB_INVENTORY, "lab").stdout.strip()
        for path in ("v1/models", "api/tags"):
            url = f"http://{own}:8434/{path}"
            said = walls.lab.ssh("edge", f'curl -sm 9 -H "Authorization: Bearer {key}" {url}')
            assert "gpt-oss" in said, said
    finally:
        walls.lab.ssh(
            "edge",
            f"ip route change {subnet} dev host0 src {own}; ip address del {other}/24 dev host0",
        )


_NO_IPV6 = """set -e
mount -t tmpfs none /proc/sys/net/ipv6
printf '[Service]\\nRestrictAddressFamilies=\\nRestrictAddressFamilies=%s\\n' \\
    'AF_UNIX AF_INET AF_NETLINK' > /etc/systemd/system/nginx.service.d/zz-no-ipv6.conf
systemctl daemon-reload
"""


def test_gateway_listens_on_any_address_of_a_kernel_without_ipv6(walls: Firewalled) -> None:
    """As after a boot with ipv6.disable=1: no such socket can be made, and /proc has none of it."""
    walls.lab.ssh("edge", _NO_IPV6)
    try:
        walls.lab.deploy("--limit", "edge", "--data", "gateway_listen=any")
        assert "valid API key" in walls.foreign_get(walls.addresses("edge")[0], 8434)
    finally:
        walls.lab.ssh(
            "edge",
            "umount /proc/sys/net/ipv6; rm /etc/systemd/system/nginx.service.d/zz-no-ipv6.conf; "
            "systemctl daemon-reload",
        )
        walls.lab.deploy("--limit", "edge")


def test_filter_of_others_that_closes_a_service_is_refused(walls: Firewalled) -> None:
    lab = walls.lab
    lab.ssh(
        "edge",
        "apt-get -qq update; DEBIAN_FRONTEND=noninteractive "
        "apt-get -qq install -y --no-install-recommends iptables >/dev/null",
    )
    undo = "iptables -F; iptables-legacy -F; iptables-legacy -X"
    try:
        for rules, words in ((ORACLE, "ip filter INPUT"), (LEGACY, "-A mine -j DROP")):
            lab.ssh("edge", f"set -e; {rules}")
            result = lab.pyinfra("-y", "--limit", "edge", check=False)
            assert result.returncode != 0
            assert "edge: another packet filter here closes what is declared" in result.stderr
            assert "gateway_port = 8434" in result.stderr
            assert "ssh_port" not in result.stderr
            assert words in result.stderr
            assert walls.verify("other_filters and edge").returncode == 1
            lab.ssh("edge", undo)
        # Those of some callers, by address or mark, of containers and of fail2ban close nothing.
        lab.ssh(
            "edge",
            "set -e; iptables -A INPUT -s 192.0.2.9 -j DROP; iptables -P FORWARD DROP; "
            "iptables -A INPUT -m mark --mark 0x8000/0x8000 -j DROP",
        )
        assert lab.deploy("--limit", "edge") == {}
    finally:
        lab.ssh("edge", f"{undo}; iptables -P FORWARD ACCEPT")
    # gpu1 has Docker's own.
    assert walls.verify("other_filters and not edge").returncode == 0


def test_rules_that_exclude_the_controller_are_refused(walls: Firewalled) -> None:
    before = walls.rules()
    result = walls.lab.pyinfra(
        "-y", "--limit", "gpu1", "--data", 'firewall_ssh_from=["192.0.2.0/24"]', check=False
    )
    assert result.returncode != 0
    controller = walls.lab.state["controller"]["address"]
    assert f"would shut out this machine, which the host sees as {controller}" in result.stderr
    assert walls.rules() == before


@pytest.mark.parametrize(
    ("package", "enable", "disable"),
    [
        ("ufw", "ufw allow 22/tcp && ufw --force enable", "ufw disable"),
        ("firewalld", "systemctl enable --now firewalld", "systemctl disable --now firewalld"),
    ],
)
def test_two_firewalls_on_one_host_are_refused(
    walls: Firewalled, package: str, enable: str, disable: str
) -> None:
    lab = walls.lab
    before = lab.ssh("gpu2", "nft --stateless list table inet llm_fleet")
    install = "DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends"
    lab.ssh("gpu2", f"apt-get -qq update; {install} iptables {package} && {enable}")
    try:
        result = lab.pyinfra("-y", "--limit", "gpu2", check=False)
        assert result.returncode != 0
        assert f"gpu2: {package} is in force here" in result.stderr
        # A reason, and both ways out.
        assert f"`{disable}`" in result.stderr
        assert "firewall_backend = 'none'" in result.stderr
    finally:
        lab.ssh("gpu2", disable)
    assert lab.ssh("gpu2", "nft --stateless list table inet llm_fleet") == before
    assert lab.deploy("--limit", "gpu2") == {}


def _unmask(walls: Firewalled) -> None:
    _in_background(walls, "nft delete table ip disguise")


def _in_background(walls: Firewalled, command: str) -> None:
    """For what takes the translation of addresses away, and with it the connection that asks."""
    run = "systemd-run --quiet --collect --unit background --on-active 0.5"
    walls.lab.ssh("gpu1", f"{run} sh -c '{command}'")
    time.sleep(1.5)


def test_rules_nobody_can_log_in_under_are_put_back(healed: Firewalled) -> None:
    before = healed.rules()
    healed.lab.ssh("gpu1", _MASQUERADE)
    result = healed.lab.pyinfra(
        "-y", "--limit", "gpu1", *_SHUT_OUT, "--data", "firewall_confirm_within=6s", check=False
    )
    assert result.returncode != 0
    assert "gpu1: under the new firewall rules no new login from this machine succeeded" in (
        result.stderr
    )
    assert "the old rules are back" in result.stderr
    assert healed.rules() == before
    _unmask(healed)
    assert healed.lab.deploy("--limit", "gpu1") == {}


def test_rules_that_close_the_tunnel_of_the_login_are_not_kept(
    healed: Firewalled, tmp_path: Path
) -> None:
    """What carries it is an old flow, and would pass until the next boot."""
    before = healed.rules()
    with through_vpn(healed, tmp_path) as options:
        rules = healed.rules()
        assert _can_log_in(VPN_ADDRESS)
        result = healed.lab.pyinfra("-y", *options, check=False)
        assert "gpu1: firewall_open_udp = [] would close UDP 51820" in result.stderr
        assert healed.rules() == rules
        # A tunnel of which nobody here knows the port.
        healed.lab.ssh("gpu1", "chmod -x /usr/bin/wg")
        result = healed.lab.pyinfra("-y", *options, check=False)
        assert result.returncode != 0
        assert "gpu1: under the new firewall rules no new login" in result.stderr
        assert "firewall_open_udp" in result.stderr
        assert healed.rules() == rules
        assert _can_log_in(VPN_ADDRESS)
        healed.lab.deploy(*options, "--data", "firewall_open_udp=[51820]")
        assert _can_log_in(VPN_ADDRESS)
        live, kept = healed.rules()
        assert "udp dport 51820 accept" in live
        assert live.count("51820") == kept.count("51820"), "rules of the trial were left"
        healed.lab.ssh("gpu1", "chmod +x /usr/bin/wg")
    assert before[0] != live


@contextmanager
def _trial_without_controller(walls: Firewalled, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """A deploy of rules that shut everybody out, killed while they are tried.

    Yields a session that was open before, the only way in.
    """
    walls.lab.ssh("gpu1", _MASQUERADE)
    environment = {"LLM_FLEET_LAB_ID": walls.lab.id, "PATH": "/usr/bin:/bin"}
    session = subprocess.Popen(
        [BIN / "lab", "ssh", "gpu1", "sh"],
        cwd=ROOT, env=environment, text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    deploy = subprocess.Popen(
        [
            BIN / "pyinfra", LAB_INVENTORY, "deploy.py", "-y", "--limit", "gpu1", *_SHUT_OUT,
            "--data", f"firewall_confirm_within={seconds}s",
        ],
        cwd=ROOT, env={**environment, "PYINFRA_PROGRESS": "off"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(
            "until nft list table inet llm_fleet | grep -q 10.99.0.1; do sleep 0.1; done; echo on\n"
        )
        assert session.stdout.readline() == "on\n"
        deploy.send_signal(signal.SIGKILL)
        deploy.wait()
        yield session
    finally:
        deploy.kill()
        session.kill()
        session.communicate()


def _can_log_in(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), 0.5):
            return True
    except OSError:
        return False


def test_killed_deploy_is_undone_by_the_host(healed: Firewalled) -> None:
    before = healed.rules()
    address = healed.addresses("gpu1")[0]
    with _trial_without_controller(healed, seconds=8):
        began = time.monotonic()
        assert not _can_log_in(address)
        while not _can_log_in(address):
            assert time.monotonic() - began < 20, "the host stays shut"
            time.sleep(0.2)
    assert healed.rules() == before
    assert "the old rules are back" in healed.lab.ssh(
        "gpu1", "journalctl -o cat -u llm-fleet-firewall-rollback"
    )
    _unmask(healed)


def test_reboot_during_a_trial_boots_the_kept_rules(healed: Firewalled) -> None:
    before = healed.rules()
    started = healed.lab.ssh("gpu1", "stat -c %Y /proc/1")
    with _trial_without_controller(healed, seconds=600) as session:
        assert not _can_log_in(healed.addresses("gpu1")[0])
        assert session.stdin is not None
        session.stdin.write("systemctl reboot\n")
        time.sleep(1)
        healed.wait_for_boot(started)
    assert healed.rules() == before


def test_trial_survives_nftables_and_ends(healed: Firewalled) -> None:
    """Another unit's flush neither opens the host in the middle of a trial nor ends it."""
    before = healed.rules()
    with _trial_without_controller(healed, seconds=8) as session:
        assert session.stdin is not None
        # The flush ends the session too: its address was translated.
        session.stdin.write(
            "systemd-run --quiet --collect --unit background sh -c '"
            "systemctl restart nftables; nft list table inet llm_fleet > /run/in-trial'\n"
        )
        time.sleep(9)
    assert "10.99.0.1" in healed.lab.ssh("gpu1", "cat /run/in-trial")
    assert healed.rules() == before
    _in_background(healed, "systemctl stop nftables; systemctl restart docker")
