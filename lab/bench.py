"""What the gateway costs: `make bench-gateway`, on the lab's own host for it.

The gateway's rendered configuration runs beside a bare `proxy_pass` in one and the same nginx,
before the lab's own Ollama servers for the throughput of the cheapest chat, of one token, and
before a backend on loopback that answers at once for what a request costs the gateway, with 5 keys
and with 500. Runs alternate, so that other work on the machine meets all; medians are compared.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
from pyinfra.api.inventory import Inventory

from fleet.capabilities import CAPABILITIES
from fleet.declare.load import load_fleet
from fleet.gateway.declared import gateway_keys
from fleet.gateway.files import config_files
from fleet.kit.paths import LIB
from fleet.kit.secrets import SecretStore
from lab import hosts, state
from lab.state import EDGE, Lab, LabError

BACKEND = 19000
ROUNDS, SECONDS = 12, 2
# An answer of a kilobyte, as a short completion is one.
_BACKEND = """
    server {{
        listen 127.0.0.1:{backend};
        location / {{ default_type application/json; return 200 '{{"text":"{text}"}}'; }}
    }}
"""
_BARE = """
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_set_header Connection "";
            proxy_pass http://ollama;
        }}
    }}
"""
_REQUEST = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.body = '{{"model":"gpt-oss:20b","max_tokens":1,' ..
  '"messages":[{{"role":"user","content":"{text}"}}]}}'
"""


@dataclass(frozen=True)
class Rig:
    """One nginx with a gateway of `keys` keys at `port`, and the bare proxy at the next.

    `servers` are the addresses of the Ollama servers behind both; none: what answers at once.
    """

    keys: int
    port: int
    servers: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Its files on the host."""
        return f"/run/bench-{self.port}"


def main() -> None:
    """Measure, and print a line a comparison."""
    lab = state.find(state.default_id())
    if lab is None:
        sys.exit("There is no lab: run `lab up`.")
    known = json.loads(lab.json_path.read_text())["hosts"]
    servers = tuple(host["address"] for host in known.values() if "gpu" in host["groups"])
    rigs = (
        Rig(5, 19001, servers),
        Rig(5, 19011),
        Rig(500, 19021),
    )
    _ssh(
        lab,
        "command -v wrk >/dev/null || (apt-get -qq update && apt-get -qq install wrk >/dev/null)",
    )
    try:
        for rig in rigs:
            _start(lab, rig)
        _measure(lab, *rigs)
    finally:
        for rig in rigs:
            _ssh(lab, f"kill $(cat {rig.folder}/nginx.pid) 2>/dev/null; rm -rf {rig.folder}")


def _measure(lab: Lab, real: Rig, few: Rig, many: Rig) -> None:
    """Alternate between the ports, and print what was found."""
    ports = {
        "chat, gateway": (real, real.port),
        "chat, bare": (real, real.port + 1),
        "empty, gateway": (few, few.port),
        "empty, bare": (few, few.port + 1),
        "empty, 500 keys": (many, many.port),
    }
    rates: dict[str, list[float]] = {name: [] for name in ports}
    delays: dict[str, list[float]] = {name: [] for name in ports}
    for number in range(ROUNDS):
        # Each is the first, the middle and the last one as often as the others.
        names = [list(ports)[(number + place) % len(ports)] for place in range(len(ports))]
        for name in names:
            rates[name].append(_wrk(lab, *ports[name], connections=16)[0])
            delays[name].append(_wrk(lab, *ports[name], connections=1)[1])
    for name in ports:
        rate, delay = statistics.median(rates[name]), statistics.median(delays[name])
        click.echo(f"{name:<15} {rate:8.0f} requests/s   p50 {delay * 1000:6.0f} us")
    for kind in ("chat", "empty"):
        ratio = _ratio(rates[f"{kind}, gateway"], rates[f"{kind}, bare"])
        click.echo(f"{kind} throughput, gateway / bare   {ratio}")
    pairs = zip(delays["empty, gateway"], delays["empty, bare"], strict=True)
    added = statistics.median(ours - bare for ours, bare in pairs)
    click.echo(f"p50 added to the first byte      {added:.3f} ms")
    ratio = _ratio(rates["empty, 500 keys"], rates["empty, gateway"])
    click.echo(f"throughput, 500 keys / 5 keys    {ratio}")


def _ratio(ours: list[float], others: list[float]) -> str:
    """The median of the rounds' own ratios, and between which two the middle half of them lies."""
    ratios = [one / other for one, other in zip(ours, others, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def _start(lab: Lab, rig: Rig) -> None:
    config, others, key = _configuration(lab, rig)
    _ssh(lab, f"rm -rf {rig.folder}; install -d -m 755 {rig.folder}")
    for name, text in (
        ("nginx.conf", config),
        *others.items(),
        ("request.lua", _REQUEST.format(key=key, text="x" * 400)),
    ):
        _ssh(lab, f"cat > {rig.folder}/{name}", text)
    _ssh(lab, f"nginx -c {rig.folder}/nginx.conf")


def _configuration(lab: Lab, rig: Rig) -> tuple[str, dict[str, str], str]:
    """nginx's configuration, the other files by name, and one of the keys that are let in."""
    declared = {
        "gateway_listen": "loopback", "gateway_port": rig.port,
        "private_address": lab.address(EDGE.index),
        "gateway_tls": "off", "gateway_metrics": "off",
        "gateway_keys": [
            {"name": f"key{n}", "rate": "100000/s", "concurrent": 1000} for n in range(rig.keys)
        ],
    }  # fmt: skip
    gpu = {"ollama_listen": "private"} if rig.servers else {"ollama_port": BACKEND}
    inventory = Inventory(  # type: ignore[no-untyped-call]
        ([("box", declared), *((name, {"private_address": name}) for name in rig.servers)], {}),
        gpu=(list(rig.servers) or ["box"], gpu),
        gateway=(["box"], {}),
    )
    fleet = load_fleet(inventory, CAPABILITIES)
    with tempfile.TemporaryDirectory() as folder:
        fleet.secrets = SecretStore(Path(folder))
        files = {
            file.staged_name: file.text for file in config_files(fleet["box"], fleet, (3, 0), [])
        }
        key = gateway_keys(fleet, fleet["box"])["key3"].get_secret_value()
    extra = _BARE.format(port=rig.port + 1)
    if rig.keys == 5 and not rig.servers:
        extra += _BACKEND.format(backend=BACKEND, text="y" * 1000)
    text = re.sub(r"\}\s*\Z", f"{extra}}}\n", files.pop("nginx.conf"))
    text = text.replace("/run/nginx.pid", f"{rig.folder}/nginx.pid").replace(LIB, rig.folder)
    return text.replace("/var/log/llm-fleet/", f"{rig.folder}/"), files, key


def _wrk(lab: Lab, rig: Rig, port: int, connections: int) -> tuple[float, float]:
    """Requests a second, and the median time to an answer in milliseconds."""
    told = _ssh(
        lab,
        f"wrk -t1 -c{connections} -d{SECONDS}s --latency -s {rig.folder}/request.lua "
        f"http://127.0.0.1:{port}/v1/chat/completions",
    )
    if "Non-2xx" in told:
        raise LabError(f"not every request was answered:\n{told}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    half = re.search(r"50%\s+([\d.]+)(us|ms|s)", told)
    if rate is None or half is None:
        raise LabError(f"wrk said:\n{told}")
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}[half[2]]
    return float(rate[1]), float(half[1]) * scale


def _ssh(lab: Lab, command: str, stdin: str = "") -> str:
    result = subprocess.run(
        [*hosts.ssh(lab, "edge"), command], input=stdin, text=True, capture_output=True, check=False
    )
    if result.returncode and not command.startswith("kill"):
        raise LabError(f"{command}: {result.stderr or result.stdout}")
    return result.stdout


if __name__ == "__main__":
    main()
