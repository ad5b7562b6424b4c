"""The front door: nginx with Bearer keys before the fleet's Ollama servers."""

from __future__ import annotations

from pydantic import SecretStr
from pyinfra import host
from pyinfra.api import StringCommand, deploy
from pyinfra.operations import files

from fleet import paths
from fleet.durations import seconds
from fleet.errors import FleetError
from fleet.facts.files import FileStates
from fleet.facts.platform import ForeignFiles
from fleet.inventory import Endpoint, Fleet, FleetHost
from fleet.operations.files import ManagedFile, install_files
from fleet.operations.packages import install_packages
from fleet.operations.units import run_unit
from fleet.render import render


@deploy("Gateway")
def gateway(me: FleetHost, fleet: Fleet) -> None:
    """Serve the declared keys' owners, and nobody else, from every GPU host."""
    _refuse_foreign_sites(me)
    # Masked while it is installed: the package's own site would listen on every address.
    install_packages(
        name="Install nginx", packages=["curl", "nginx"], masked_unit=paths.GATEWAY_UNIT
    )
    files.directory(name="Create the directory", path=paths.GATEWAY_DIR, mode="700")
    install_files(
        name="Install the configuration",
        files=config_files(me, fleet),
        check=StringCommand('nginx -t -q -c "$PWD/nginx.conf"'),
    )
    install_files(name="Install the drop-in", files=[dropin_file()])
    run_unit(
        name="Run nginx as declared",
        unit=paths.GATEWAY_UNIT,
        files=[paths.GATEWAY_DROPIN],
        reload_files=[paths.GATEWAY_CONFIG, paths.GATEWAY_KEYS],
        health_url=f"http://{local_endpoint(me)}/healthz",
    )


def _refuse_foreign_sites(me: FleetHost) -> None:
    """nginx serves one configuration: taking a host over would end the sites that it has."""
    if paths.GATEWAY_DROPIN in host.get_fact(FileStates, paths=[paths.GATEWAY_DROPIN]):
        return
    found = host.get_fact(
        ForeignFiles, patterns=["/etc/nginx/sites-enabled/*", "/etc/nginx/conf.d/*.conf"]
    )
    sites = [path for path in found if path != "/etc/nginx/sites-enabled/default"]
    if sites:
        raise FleetError(
            f"{me.name}: nginx serves other sites here ({', '.join(sites)}), which the front door "
            "would replace; take another host for the gateway, or move the sites away"
        )


def config_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """nginx's whole configuration, and the keys that it includes."""
    config = render(
        "gateway/nginx.conf.j2",
        endpoints=me.gateway_endpoints,
        max_body=me.gateway.max_body,
        read_timeout=round(seconds(me.gateway.read_timeout)),
        upstreams=[gpu.ollama_endpoint for gpu in fleet.gpu_hosts],
    )
    keys = {name: key.get_secret_value() for name, key in fleet.gateway_keys(me).items()}
    return [
        ManagedFile(paths.GATEWAY_CONFIG, config),
        ManagedFile(
            paths.GATEWAY_KEYS, SecretStr(render("gateway/keys.conf.j2", keys=keys)), mode="600"
        ),
    ]


def dropin_file() -> ManagedFile:
    """The drop-in that has the package's unit read our configuration only."""
    return ManagedFile(
        paths.GATEWAY_DROPIN, render("gateway/nginx.dropin.conf.j2", config=paths.GATEWAY_CONFIG)
    )


def local_endpoint(me: FleetHost) -> Endpoint:
    """Where the gateway's own host reaches the front door."""
    if me.gateway.listen == "any":
        return Endpoint("127.0.0.1", me.gateway.port)
    return me.gateway_endpoints[0]
