"""Root file systems that a distribution publishes, such as Ubuntu's for its cloud images, as hosts.

The tarball is unpacked as it is, and given what its own first boot at a provider would have given
it: a login. cloud-init, which would wait for a provider, is switched off.
"""

import hashlib
import inspect
from pathlib import Path

from lab import images
from lab.state import CACHE, run

PREPARE = """set -eu
missing=
[ -e /sbin/init ] || missing="$missing systemd-sysv"
[ -e /usr/sbin/sshd ] || missing="$missing openssh-server"
[ -e /usr/bin/sudo ] || missing="$missing sudo"
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || { echo "it lacks$missing, and apt-get to install it"; exit 1; }
    apt-get -q update
    apt-get -q -y --no-install-recommends install $missing
fi
id ops >/dev/null 2>&1 || useradd --create-home --shell /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/ops
chmod 0440 /etc/sudoers.d/ops
rm -f /etc/ssh/ssh_host_* /etc/machine-id /var/lib/dbus/machine-id
if [ -d /etc/cloud ]; then touch /etc/cloud/cloud-init.disabled; fi
systemctl --quiet enable systemd-networkd.service
systemctl --quiet is-enabled ssh.socket || systemctl --quiet enable ssh.service
systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer console-getty.service getty.target \\
    systemd-firstboot.service
mkdir -p /var/log/journal
"""


def ensure(tarball: Path) -> Path:
    """Return the image of a root file system's tarball, unpacked when it is not in the cache.

    Raises LabError when it holds none that can be booted, or what it lacks cannot be installed.
    """
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    options = images.apt_options()
    key = images.short_hash(digest, PREPARE, options, inspect.getsource(_unpack))
    image = CACHE / f"{name_of(tarball)}-{key}"
    return images.cached(image, lambda work: _unpack(tarball, work / "root", options))


def name_of(tarball: Path) -> str:
    """Return the name of the image of a tarball: its own without what it ends with."""
    return tarball.name.partition(".tar")[0]


def _unpack(tarball: Path, root: Path, options: str) -> None:
    root.mkdir(mode=0o755)
    run(
        [
            *("tar", "--extract", "--file", tarball, "--directory", root),
            *("--numeric-owner", "--xattrs", "--xattrs-include=*"),
        ]
    )
    if (root / "etc/apt/apt.conf.d").is_dir():
        (root / "etc/apt/apt.conf.d/99lab").write_text(options)
    run(
        [
            # With the machine's network: what the tarball lacks comes from its own sources.
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe"),
            *("--resolv-conf=bind-host", "--timezone=off"),
            *("--setenv=DEBIAN_FRONTEND=noninteractive", f"--directory={root}"),
            *("sh", "-c", PREPARE),
        ]
    )
