"""Where Docker is kept on a host, and the units."""

from __future__ import annotations

from fleet.declare.logs import Logs
from fleet.kit.paths import ETC

DOCKER_UNIT = "docker.service"
# Where Docker keeps everything by itself.
DOCKER_ROOT = "/var/lib/docker"
DOCKER_CONFIG = "/etc/docker/daemon.json"
# Where Docker CE and the distributions have the daemon.
DOCKER_BINARIES = ("/usr/bin/dockerd", "/usr/sbin/dockerd")
# Which keys of daemon.json are ours.
DOCKER_OWNED = f"{ETC}/docker-owned.json"

LOGS = Logs(
    units=(DOCKER_UNIT, "containerd.service"),
)
