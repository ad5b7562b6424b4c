"""The lab's network: a namespace with a bridge, a foreign host on it, and the way out.

    machine                      lab namespace                       hosts
    llmlab<n> .254 ---- veth --- br-lab .1 (upstream.lab) --- veth --- host0 .10 .11 ...
                                        `--- veth --- foreign .250

Hosts leave over the machine (.254), which masquerades them. The namespaces are held by processes
of the lab, so that all but one nftables table goes away with the lab's processes.
"""

import contextlib
import json
import shutil
import time
from pathlib import Path

from lab import processes
from lab.state import Lab, LabError, run

BRIDGE = "br-lab"
UPSTREAM, FOREIGN, CONTROLLER = 1, 250, 254

# Frames between hosts shall not also pass the IP hooks of the lab's namespace (br_netfilter).
NO_BRIDGE_FILTER = (
    "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 > $f; done"
)


def inside(lab: Lab, unit: str = "netns") -> list[str]:
    """Return the words before a command that runs it in one of the lab's namespaces."""
    return ["nsenter", f"--net={namespace(lab, unit)}", "--"]


def foreign(lab: Lab) -> list[str]:
    """Return the words before a command that runs it as a host that is not of the fleet."""
    return inside(lab, "netns-foreign")


def namespace(lab: Lab, unit: str = "netns") -> Path:
    """Return the path of a namespace of the lab: `netns` or `netns-foreign`."""
    pids = processes.members(processes.group(lab, unit))
    if not pids:
        raise LabError("The lab's network is not up: run `lab up`.")
    return Path(f"/proc/{pids[0]}/ns/net")


def up(lab: Lab) -> bool:
    """Build the network unless it is up already; return whether it was built."""
    if is_up(lab):
        return False
    down(lab)
    _hold(lab, "netns")
    _bridge(lab)
    _controller(lab)
    _hold(lab, "netns-foreign")
    _foreign(lab)
    _way_out(lab)
    lab.write("network", {"holder": str(namespace(lab))})
    return True


def is_up(lab: Lab) -> bool:
    """Say whether all of the network was built by the processes that hold it now."""
    with contextlib.suppress(LabError):
        # The record is written last: a killed `lab up` has none, and is built anew.
        return lab.read("network").get("holder") == str(namespace(lab)) and _table_exists(lab)
    return False


def down(lab: Lab) -> None:
    """Remove the network, whatever of it there is."""
    (lab.root / "network.json").unlink(missing_ok=True)
    for unit in ("netns-foreign", "netns"):
        processes.kill(processes.group(lab, unit))
    run(["ip", "link", "delete", lab.link], check=False)
    run(["nft", "delete", "table", "ip", _table(lab)], check=False)
    _forward_rules(lab, "-D")


def _hold(lab: Lab, unit: str) -> None:
    processes.start(lab, unit, ["unshare", "--net", "--", "sleep", "infinity"])
    ours = Path("/proc/self/ns/net").readlink()
    end = time.monotonic() + 10
    # Until unshare has run, the holder's namespace is the machine's own: never configure that.
    while time.monotonic() < end:
        with contextlib.suppress(LabError, OSError):
            if namespace(lab, unit).readlink() != ours:
                return
        time.sleep(0.01)
    raise LabError("No network namespace within 10 s: is CONFIG_NET_NS in this kernel?")


def _batch(prefix: list[str], lines: str) -> None:
    run([*prefix, "ip", "-batch", "-"], stdin=lines)


def _bridge(lab: Lab) -> None:
    # A fixed address: a bridge otherwise takes its lowest port's, and changes it as hosts come.
    # Multicast snooping without a querier drops IPv6 neighbour discovery.
    _batch(
        inside(lab),
        f"""link set lo up
link add {BRIDGE} address 02:77:00:00:{lab.number:02x}:01 type bridge mcast_snooping 0
link set {BRIDGE} up
address add {lab.address(UPSTREAM)}/24 dev {BRIDGE}
address add {lab.address6(UPSTREAM)}/64 dev {BRIDGE} nodad
route add default via {lab.address(CONTROLLER)}
""",
    )
    run([*inside(lab), "sh", "-c", NO_BRIDGE_FILTER])


def _plug(lab: Lab, port: str, name: str, prefix: list[str], index: int) -> None:
    """Put an interface `name` with its addresses where `prefix` leads; `port` is on the bridge."""
    pid = namespace(lab).parts[2]
    # Both ends in one step, in their own places: nothing to lose if we are killed in between.
    _batch(prefix, f"link add {name} type veth peer name {port} netns {pid}\n")
    _batch(inside(lab), f"link set {port} master {BRIDGE} up\n")
    _batch(
        prefix,
        f"link set lo up\naddress add {lab.address(index)}/24 dev {name}\nlink set {name} up\n",
    )
    # A machine without IPv6 still has a lab.
    run(
        [*prefix, "ip", "address", "add", f"{lab.address6(index)}/64", "dev", name, "nodad"],
        check=False,
    )


def _controller(lab: Lab) -> None:
    _plug(lab, "controller", lab.link, [], CONTROLLER)


def _foreign(lab: Lab) -> None:
    _plug(lab, "foreign", "eth0", foreign(lab), FOREIGN)


def _table(lab: Lab) -> str:
    return f"llm_fleet_lab_{lab.number}"


def _table_exists(lab: Lab) -> bool:
    tables = json.loads(run(["nft", "-j", "list", "tables"]))["nftables"]
    return any(item.get("table", {}).get("name") == _table(lab) for item in tables)


def _way_out(lab: Lab) -> None:
    # The way out may be narrower than the bridge (a tunnel): TCP is told so at once.
    subnet = f"{lab.address(0)}/24"
    ruleset = f"""table ip {_table(lab)} {{
  chain out {{
    type nat hook postrouting priority srcnat;
    ip saddr {subnet} oifname != "{lab.link}" masquerade
  }}
  chain narrow {{
    type filter hook forward priority mangle;
    iifname "{lab.link}" tcp flags syn tcp option maxseg size set rt mtu
    oifname "{lab.link}" tcp flags syn tcp option maxseg size set rt mtu
  }}
}}
"""
    run(["nft", "-f", "-"], stdin=ruleset)
    _forward_rules(lab, "-I")


def _forward_rules(lab: Lab, action: str) -> None:
    """Let the lab through a machine's own FORWARD policy of DROP (Docker's, ufw's)."""
    if not shutil.which("iptables"):
        return
    if action == "-I" and "-P FORWARD DROP" not in run(["iptables", "-S", "FORWARD"], check=False):
        return
    for direction in ("-i", "-o"):
        rule = [direction, lab.link, "-m", "comment", "--comment", _table(lab), "-j", "ACCEPT"]
        run(["iptables", "-w", action, "FORWARD", *rule], check=action == "-I")
