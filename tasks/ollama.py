"""Ollama: a pinned release under a hardened unit."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import Arch
from pyinfra.operations import files, server

from fleet.declare.fleet import FleetHost
from fleet.docker.images import pull_image
from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.kit.commands import verify_unit
from fleet.kit.errors import FleetError
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.proxy import proxy_environment
from fleet.kit.refuse import refuse
from fleet.kit.releases import fetcher_file
from fleet.kit.units import run_unit
from fleet.ollama.files import running_files, unit_file
from fleet.ollama.instances import refuse_missing_gpus
from fleet.ollama.operations import install_instances, install_release, remove_servers
from fleet.ollama.paths import OLLAMA_HOME, OLLAMA_UNIT
from fleet.ollama.preflight import UNIT_PATTERNS, refuse_foreign_installation
from fleet.ollama.release import release_source
from fleet.ollama.servers import instances_of
from fleet.ollama.settings import Ollama


@deploy("Instances")
def instances(me: FleetHost) -> None:
    """Refuse GPUs that are not there, before anything is changed; as far as the host can tell.

    The rest of the fleet goes on: a card that dies is no fault of the settings.
    """
    if not me[Ollama].instances:
        return
    present = host.get_fact(DrivenGpus)
    try:
        refuse_missing_gpus(instances_of(me), present, host.get_fact(GpuHardwareFact))
    except FleetError as error:
        refuse(name="Refuse GPUs that are not there", message=str(error))


@deploy("Ollama")
def ollama(me: FleetHost) -> None:
    """Run the declared release with exactly the declared environment, once or several times."""
    refuse_foreign_installation(me, host.get_fact(ForeignFiles, patterns=UNIT_PATTERNS))
    url, sha256 = release_source(me, host.get_fact(Arch))
    install_packages(name="Install tools", packages=["ca-certificates", "curl", "zstd"])
    server.group(name="Create the group", group="ollama", system=True)
    server.user(  # noqa: S604 - shell= is the login shell
        name="Create the user",
        user="ollama",
        group="ollama",
        system=True,
        home=OLLAMA_HOME,
        shell="/usr/sbin/nologin",
        create_home=False,
    )
    files.directory(
        name="Create the home",
        path=OLLAMA_HOME,
        user="ollama",
        group="ollama",
        mode="750",
    )
    files.directory(
        name="Create the models directory",
        path=me[Ollama].models_dir,
        user="ollama",
        group="ollama",
        mode="755",
    )
    if any(item.runtime == "systemd" for item in instances_of(me)):
        _install_release(me, url, sha256)
    if me[Ollama].instances:
        _install_instances(me)
    else:
        install_files(
            name="Install the unit",
            files=[unit_file(instances_of(me)[0])],
            check=verify_unit(OLLAMA_UNIT),
        )
    # Before the new ones start, which may have a port of theirs.
    remove_servers(
        name="Remove servers that are not declared", keep=[item.unit for item in instances_of(me)]
    )
    for item in instances_of(me):
        run_unit(
            name=f"Run Ollama as declared{f': {item.name}' if item.name else ''}",
            unit=item.unit,
            files=running_files(item),
            health_url=f"{item.url}/api/version",
        )


def _install_release(me: FleetHost, url: str, sha256: str) -> None:
    install_files(
        name="Install the release fetcher",
        files=[fetcher_file()],
    )
    install_release(
        name=f"Install Ollama {me[Ollama].version}",
        version=me[Ollama].version,
        url=url,
        sha256=sha256,
        environment=proxy_environment(me[Ollama].https_proxy, me[Ollama].no_proxy),
    )


def _install_instances(me: FleetHost) -> None:
    if any(item.runtime == "docker" for item in instances_of(me)):
        pull_image(
            name="Pull the image", image=str(me[Ollama].image), unit="llm-fleet-pull-ollama.service"
        )
    install_instances(name="Install the instances' units", instances=list(instances_of(me)))
