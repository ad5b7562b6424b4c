"""What tests of files have in common: how they are made and read, and who judges them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from inspect import getmembers, isfunction, signature
from itertools import product
from pathlib import Path
from typing import Any

from fleet.declare.capability import Capability
from fleet.declare.fleet import Fleet, FleetHost
from fleet.driver.facts import Gpu, GpuHardware
from fleet.driver.plan import System, make_plan
from fleet.driver.settings import Driver
from fleet.firewall.paths import FIREWALL_GUARD
from fleet.gpu.facts import SeenGpu
from fleet.kit.facts.places import Place
from fleet.kit.files import ManagedFile
from fleet.ollama.paths import OLLAMA_BINARY
from fleet.ollama.servers import Instance, instances_of
from fleet.ollama.storage import Storage, asked_paths
from fleet.vllm.servers import vllm_instances


def make_files(item: Capability, fleet: Fleet) -> list[ManagedFile]:
    """Every file of a capability, made for every host that has it."""
    files: list[ManagedFile] = []
    for function in _file_functions(item):
        takes = signature(function).parameters
        for host in fleet.running(item.settings):
            for given in _arguments(host, fleet):
                made = function(**{name: given[name] for name in takes})
                files += [made] if isinstance(made, ManagedFile) else made
    return files


def _file_functions(item: Capability) -> Iterator[Callable[..., Any]]:
    """Each function of a capability's `files.py` that makes files."""
    name = f"{item.settings.__module__.rpartition('.')[0]}.files"
    if find_spec(name) is None:
        return
    for _, function in getmembers(import_module(name), isfunction):
        returned = signature(function).return_annotation
        if function.__module__ == name and "ManagedFile" in returned:
            yield function


def _arguments(host: FleetHost, fleet: Fleet) -> Iterator[dict[str, Any]]:
    """What functions of files are called with, by the name of the parameter."""
    hardware = GpuHardware((Gpu("0000:17:00.0", 0x2330),))
    for instance, item in product(instances_of(host) or [None], vllm_instances(host) or [None]):
        yield {
            "item": item,
            "config": None,
            "me": host,
            "fleet": fleet,
            "instance": instance,
            "storage": plain_storage(instance) if instance else None,
            "uuids": ["GPU-x"],
            "gpus": [SeenGpu("0000:17:00.0", "GPU-x")],
            "plan": make_plan(host[Driver], System("debian", "13"), hardware),
            "openssl": (3, 5),
            "idle": [],
            "ipv6": True,
            "resolvers": ("127.0.0.53",),
            "names": [],
            "drained": {},
        }


def plain_storage(instance: Instance) -> Storage:
    """Home and models directory of a host without links."""
    paths = asked_paths(instance.settings)
    return Storage.of(instance.settings, {path: Place(path, path) for path in paths})


def lines(text: str) -> list[str]:
    """The lines of `text` without their indentation."""
    return [line.strip() for line in text.splitlines()]


def nft_listing(directory: Path, ruleset: str) -> str:
    """What nft lists after it has loaded `ruleset` in a network namespace that ends with it."""
    path = directory / "ruleset.nft"
    path.write_text(ruleset)
    script = f"nft -f {path} && nft --stateless list ruleset"
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def lay(directory: Path, file: ManagedFile) -> None:
    """Lay a unit's file where `complaints` looks for it."""
    # systemd-analyze wants the programs, which this machine has no reason to have.
    text = file.text.replace("/usr/bin/docker", "/bin/true")
    for program in (OLLAMA_BINARY, FIREWALL_GUARD):
        text = text.replace(f"={program}", "=/bin/true")
    (directory / file.staged_name).write_text(text)


def complaints(directory: Path, name: str) -> str:
    """What systemd says of a unit: of a misspelt key too, which does not make the exit status."""
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"./{name}"],
        cwd=directory,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"},
        check=False,
        capture_output=True,
        text=True,
    )
    return result.stdout + result.stderr
