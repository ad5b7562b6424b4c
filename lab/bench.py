"""What the front door costs: `make bench-gateway`, on the lab's own gateway host.

The gateway's rendered configuration runs beside a bare `proxy_pass` in one and the same nginx,
both before a backend that answers at once, all on loopback. Runs alternate, so that other work on
the machine meets both; medians are compared. Two such nginx run: with 5 keys, and with 500.
"""

import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
from pyinfra.api.inventory import Inventory

from fleet.inventory import load_fleet
from fleet.secrets import SecretStore
from lab import hosts, state
from lab.state import Lab, LabError
from tasks.gateway import config_files

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
wrk.body = '{{"model":"gpt-oss:20b","messages":[{{"role":"user","content":"{text}"}}]}}'
"""


@dataclass(frozen=True)
class Rig:
    """One nginx with a gateway of `keys` keys at `port`, and the bare proxy at the next."""

    keys: int
    port: int

    @property
    def folder(self) -> str:
        """Its files on the host."""
        return f"/run/bench-{self.keys}"


def main() -> None:
    """Measure, and print a line a comparison."""
    lab = state.find(state.default_id())
    if lab is None:
        sys.exit("There is no lab: run `lab up`.")
    rigs = (Rig(5, 19001), Rig(500, 19011))
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


def _measure(lab: Lab, few: Rig, many: Rig) -> None:
    ports = {"5 keys": few.port, "bare": few.port + 1, "500 keys": many.port}
    rates: dict[str, list[float]] = {name: [] for name in ports}
    delays: dict[str, list[float]] = {name: [] for name in ports}
    for number in range(ROUNDS):
        # Each is the first, the middle and the last one as often as the others.
        names = [list(ports)[(number + place) % 3] for place in range(3)]
        for name in names:
            rig = many if name == "500 keys" else few
            rates[name].append(_wrk(lab, rig, ports[name], connections=16)[0])
            delays[name].append(_wrk(lab, rig, ports[name], connections=1)[1])
    for name in ports:
        rate, delay = statistics.median(rates[name]), statistics.median(delays[name])
        click.echo(f"{name:<9} {rate:8.0f} requests/s   p50 {delay * 1000:6.0f} us")
    click.echo(f"throughput, gateway / bare     {_ratio(rates['5 keys'], rates['bare'])}")
    added = [ours - bare for ours, bare in zip(delays["5 keys"], delays["bare"], strict=True)]
    click.echo(f"p50 added to the first byte    {statistics.median(added):.3f} ms")
    click.echo(f"throughput, 500 keys / 5 keys  {_ratio(rates['500 keys'], rates['5 keys'])}")


def _ratio(ours: list[float], others: list[float]) -> str:
    """The median of the rounds' own ratios, and between which two the middle half of them lies."""
    ratios = [one / other for one, other in zip(ours, others, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def _start(lab: Lab, rig: Rig) -> None:
    config, keys, key = _configuration(rig)
    _ssh(lab, f"rm -rf {rig.folder}; install -d -m 755 {rig.folder}")
    for name, text in (
        ("nginx.conf", config),
        ("keys.conf", keys),
        ("request.lua", _REQUEST.format(key=key, text="x" * 400)),
    ):
        _ssh(lab, f"cat > {rig.folder}/{name}", text)
    _ssh(lab, f"nginx -c {rig.folder}/nginx.conf")


def _configuration(rig: Rig) -> tuple[str, str, str]:
    """nginx's files, and one of the keys that are let in."""
    declared = {
        "ollama_port": BACKEND, "gateway_listen": "loopback", "gateway_port": rig.port,
        "gateway_tls": "off", "gateway_metrics": "off",
        "gateway_keys": [
            {"name": f"key{n}", "rate": "100000/s", "concurrent": 1000} for n in range(rig.keys)
        ],
    }  # fmt: skip
    inventory = Inventory(  # type: ignore[no-untyped-call]
        ([("box", declared)], {}), gpu=(["box"], {}), gateway=(["box"], {})
    )
    fleet = load_fleet(inventory)
    with tempfile.TemporaryDirectory() as folder:
        fleet.secrets = SecretStore(Path(folder))
        config, keys = config_files(fleet["box"], fleet, (3, 0), [])
        key = fleet.gateway_keys(fleet["box"])["key3"].get_secret_value()
    extra = _BARE.format(port=rig.port + 1)
    if rig.keys == 5:
        extra += _BACKEND.format(backend=BACKEND, text="y" * 1000)
    text = re.sub(r"\}\s*\Z", f"{extra}}}\n", config.text)
    text = text.replace("/run/nginx.pid", f"{rig.folder}/nginx.pid")
    text = text.replace("unix:/run/", f"unix:{rig.folder}/")
    return text.replace("/var/log/nginx/", f"{rig.folder}/"), keys.text, key


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
