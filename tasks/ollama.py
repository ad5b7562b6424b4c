"""Ollama: a pinned release under a hardened unit."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import Arch
from pyinfra.operations import files, server

from fleet.declare.load import FleetHost
from fleet.declare.types import Architecture, proxy_environment
from fleet.docker.operations import pull_image
from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.driver.operations import refuse
from fleet.kit import paths
from fleet.kit.commands import verify_unit
from fleet.kit.errors import FleetError
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.packages import install_packages
from fleet.kit.render import host_program
from fleet.kit.units import run_unit
from fleet.ollama.instances import refuse_missing_gpus, running_files, unit_file
from fleet.ollama.operations import install_instances, install_release, remove_servers

_ARCHITECTURES: dict[str, Architecture] = {"x86_64": "amd64", "aarch64": "arm64"}


@deploy("Instances")
def instances(me: FleetHost) -> None:
    """Refuse GPUs that are not there, before anything is changed; as far as the host can tell.

    The rest of the fleet goes on: a card that dies is no fault of the settings.
    """
    if not me.ollama.instances:
        return
    present = host.get_fact(DrivenGpus)
    try:
        refuse_missing_gpus(me.instances, present, host.get_fact(GpuHardwareFact))
    except FleetError as error:
        refuse(name="Refuse GPUs that are not there", message=str(error))


@deploy("Ollama")
def ollama(me: FleetHost) -> None:
    """Run the declared release with exactly the declared environment, once or several times."""
    _refuse_foreign_installation(me)
    url, sha256 = release_source(me, host.get_fact(Arch))
    install_packages(name="Install tools", packages=["ca-certificates", "curl", "zstd"])
    server.group(name="Create the group", group="ollama", system=True)
    server.user(  # noqa: S604 - shell= is the login shell
        name="Create the user",
        user="ollama",
        group="ollama",
        system=True,
        home=paths.OLLAMA_HOME,
        shell="/usr/sbin/nologin",
        create_home=False,
    )
    files.directory(
        name="Create the home",
        path=paths.OLLAMA_HOME,
        user="ollama",
        group="ollama",
        mode="750",
    )
    files.directory(
        name="Create the models directory",
        path=me.ollama.models_dir,
        user="ollama",
        group="ollama",
        mode="755",
    )
    if any(item.runtime == "systemd" for item in me.instances):
        _install_release(me, url, sha256)
    if me.ollama.instances:
        _install_instances(me)
    else:
        install_files(
            name="Install the unit",
            files=[unit_file(me.instances[0])],
            check=verify_unit(paths.OLLAMA_UNIT),
        )
    # Before the new ones start, which may have a port of theirs.
    remove_servers(
        name="Remove servers that are not declared", keep=[item.unit for item in me.instances]
    )
    for item in me.instances:
        run_unit(
            name=f"Run Ollama as declared{f': {item.name}' if item.name else ''}",
            unit=item.unit,
            files=running_files(item),
            health_url=f"{item.url}/api/version",
        )


def _install_release(me: FleetHost, url: str, sha256: str) -> None:
    install_files(
        name="Install the release fetcher",
        files=[
            ManagedFile(
                f"{paths.LIB}/fetch-release", host_program("kit", "fetch-release"), mode="755"
            )
        ],
    )
    install_release(
        name=f"Install Ollama {me.ollama.version}",
        version=me.ollama.version,
        url=url,
        sha256=sha256,
        environment=proxy_environment(me.ollama.https_proxy, me.ollama.no_proxy),
    )


def _install_instances(me: FleetHost) -> None:
    if any(item.runtime == "docker" for item in me.instances):
        pull_image(
            name="Pull the image", image=str(me.ollama.image), unit="llm-fleet-pull-ollama.service"
        )
    install_instances(name="Install the instances' units", instances=list(me.instances))


def _refuse_foreign_installation(me: FleetHost) -> None:
    """Another installer's unit runs as the same user on the same port, and its drop-ins win."""
    servers = [f"{paths.UNITS}/{name}" for name in ("ollama.service", "ollama@*.service")]
    found = host.get_fact(ForeignFiles, patterns=[*servers, *(f"{unit}.d/*" for unit in servers)])
    if found:
        raise FleetError(
            f"{me.name}: Ollama was installed here by something else ({', '.join(found)}); to take "
            f"over, run there: systemctl disable --now ollama; rm {' '.join(found)}; "
            f"usermod --home {paths.OLLAMA_HOME} ollama. Its models can be kept with "
            "ollama_models_dir"
        )


def release_source(me: FleetHost, machine: str) -> tuple[str, str]:
    """URL and SHA-256 of the release tarball for a host whose `uname -m` is `machine`.

    Raises:
        FleetError: no release, or no checksum, for this architecture.
    """
    arch = _ARCHITECTURES.get(machine)
    sha256 = me.ollama.tarball_sha256(arch) if arch else None
    if sha256 is None:
        raise FleetError(
            f"{me.name}: no checksum for Ollama {me.ollama.version} on {machine}; set "
            "ollama_sha256 for this host, or use an x86_64 or aarch64 host with a pinned version"
        )
    return f"{me.ollama.release_url}/v{me.ollama.version}/ollama-linux-{arch}.tar.zst", sha256
