"""What a deploy and its checks cost over many hosts, beside Ansible: `make bench-fleet` (root).

Twenty lab hosts: 19 of them with Ollama, and a gateway. Ansible converges the 19, bare again, with
the same files in 26 steps (`playbook.yml`; pipelining, 20 forks), so that both start from the same
and end with the same, in one run on one machine. Ratios are what counts: the machine's own speed is
in both of their numbers. Processor time is the controller's, children included.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from lab.state import CHECKOUT, find

HOSTS = 20
ROUNDS = 3
_HERE = Path(__file__).parent
_BIN = Path(sys.executable).parent
_INVENTORY = "inventory/lab.py"


@dataclass(frozen=True)
class Cost:
    """Seconds on the wall, and of the controller's processors."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:6.1f} s, {self.cpu:5.1f} s of processor"


def cost_of(command: list[str], environment: Mapping[str, str], *, may_find: bool = False) -> Cost:
    """What `command` takes; it must succeed, or, if it `may_find` something, at least end."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command, cwd=CHECKOUT, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode > may_find:
        raise click.ClickException(f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu)


def several(command: list[str], environment: Mapping[str, str]) -> Cost:
    """The median of some rounds."""
    costs = [cost_of(command, environment) for _ in range(ROUNDS)]
    return sorted(costs, key=lambda cost: cost.wall)[ROUNDS // 2]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--hosts", default=HOSTS, show_default=True, type=click.IntRange(2, HOSTS))
def main(hosts: int) -> None:
    """Measure, and print what was measured."""
    identity = f"bench{os.getpid()}"
    environment = {"LLM_FLEET_LAB_ID": identity}
    lab = [str(_BIN / "lab"), "--id", identity]
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run([*lab, "up", "--hosts", str(hosts)], cwd=CHECKOUT, check=True)
            _measure(identity, environment, hosts, Path(folder))
        finally:
            subprocess.run([*lab, "down"], cwd=CHECKOUT, check=False)
    for count in (250, 500, 1000):
        click.echo(f"plan of {count} fake hosts: {_plan(count):.1f} s of processor")


def _measure(identity: str, environment: dict[str, str], hosts: int, folder: Path) -> None:
    deploy = [str(_BIN / "pyinfra"), "-y", _INVENTORY, "deploy.py", "--limit", "gpu"]
    first = cost_of(deploy, environment)
    counted = {**environment, "COUNTED": str(folder / "counts.json")}
    again = several([sys.executable, "-m", "lab.bench_fleet.counted", *deploy[1:]], counted)
    counts = json.loads((folder / "counts.json").read_text())
    say("first converge", first)
    say("no-op", again)
    click.echo(f"commands a host of a no-op: {max(counts.values())} at most")
    _look(environment, hosts, deploy)
    ansible = _ansible(identity, hosts, folder)
    theirs = cost_of(ansible, _ansible_environment(folder))
    theirs_again = several(ansible, _ansible_environment(folder))
    say("Ansible, first converge", theirs)
    say("Ansible, no-op", theirs_again)
    click.echo(f"first converge: {first.wall / theirs.wall:.2f} of Ansible's time")
    click.echo(f"no-op: {again.wall / theirs_again.wall:.3f} of Ansible's time")


def _look(environment: dict[str, str], hosts: int, deploy: list[str]) -> None:
    """Status and verify, for which the gateway is needed too."""
    cost_of(deploy[:-2], environment)
    fleet = str(_BIN / "fleet")
    say(
        f"status of {hosts} hosts",
        cost_of([fleet, "status", _INVENTORY], environment, may_find=True),
    )
    verify = [fleet, "verify", _INVENTORY]
    few = cost_of([*verify, "gpu1", "edge"], environment)
    many = cost_of(verify, environment)
    say("verify of 2 hosts", few)
    say(f"verify of {hosts} hosts", many)
    click.echo(
        f"verify: {many.cpu / few.cpu:.1f} times the processor time for"
        f" {hosts / 2:.0f} times the hosts"
    )


def say(what: str, cost: Cost) -> None:
    """Print a row."""
    click.echo(f"{what:<26}{cost}")


def _ansible(identity: str, hosts: int, folder: Path) -> list[str]:
    """The command that converges the same hosts, made bare, with what was written there."""
    lab = find(identity)
    assert lab is not None
    told = json.loads(lab.json_path.read_text())
    names = [name for name, values in told["hosts"].items() if "gpu" in values["groups"]]
    run = [str(_BIN / "lab"), "--id", identity]
    paths = "etc/llm-fleet usr/local/lib/llm-fleet etc/systemd/system"
    for name in names:
        (folder / name).mkdir()
        packed = subprocess.run(
            [*run, "ssh", name, f"tar -C / --exclude __pycache__ -c {paths}"],
            cwd=CHECKOUT, capture_output=True, check=True,
        )  # fmt: skip
        subprocess.run(["tar", "-C", str(folder / name), "-x"], input=packed.stdout, check=True)
    for name in names:
        subprocess.run([*run, "reset", name], cwd=CHECKOUT, check=True, capture_output=True)
    version = told["upstream"]["ollama_version"]
    downloads = f"{told['upstream']['url']}/ollama/ollama/releases/download"
    everyone = {
        "files": str(folder), "version": version,
        "url": f"{downloads}/v{version}/ollama-linux-amd64.tar.zst",
        "sha256": told["upstream"]["ollama_sha256"], "ansible_user": "root",
        "ansible_ssh_private_key_file": told["ssh_key"],
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={told['known_hosts']}",
        "ansible_python_interpreter": "/usr/bin/python3",
    }  # fmt: skip
    addresses = {name: told["hosts"][name]["address"] for name in names}
    inventory = folder / "inventory.json"
    each = {name: {"ansible_host": at, "private_address": at} for name, at in addresses.items()}
    inventory.write_text(json.dumps({"all": {"hosts": each, "vars": everyone}}))
    environment = folder / "ansible"
    venv.create(environment, with_pip=True)
    lock = str(_HERE / "requirements.lock")
    subprocess.run(
        [environment / "bin/pip", "install", "-q", "--require-hashes", "-r", lock], check=True
    )
    # A bare host has no Python yet, without which Ansible does nothing.
    for name in names:
        subprocess.run(
            [*run, "ssh", name, "apt-get -qq update && apt-get -qq install -y python3-apt"],
            cwd=CHECKOUT, check=True, capture_output=True,
        )  # fmt: skip
    return [
        str(environment / "bin/ansible-playbook"), "-i", str(inventory), "-f", "20",
        str(_HERE / "playbook.yml"),
    ]  # fmt: skip


def _ansible_environment(folder: Path) -> dict[str, str]:
    return {
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_HOME": str(folder / "home"),
        "LC_ALL": "C.UTF-8",
    }


def _plan(count: int) -> float:
    """Processor time of checking and planning `count` bare hosts, in seconds."""
    return cost_of([sys.executable, "-m", "tests.plan.many", str(count)], {}).cpu


if __name__ == "__main__":
    main()
