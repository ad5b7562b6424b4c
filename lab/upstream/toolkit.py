"""NVIDIA's container toolkit repository: the four packages, small, with their real relations.

It stands for nvidia.github.io/libnvidia-container. Kept: the flat layout and the key beside it, the
names, versions and exact dependencies, the two units with their conditions (nvidia-smi, a module in
modules.dep), and of nvidia-ctk: `runtime configure --runtime=docker` edits daemon.json in place and
reformats it, `cdi generate` fails without a driver, `cdi list` names what is in the registry. The
devices that it describes are null devices, and libnvidia-container does nothing. The key is the
lab's own.
"""

from collections.abc import Iterator
from pathlib import Path

from lab.upstream.apt import Package, fingerprint, gpg, make_key, publish

PATH = "libnvidia-container"
# The older one is there to be upgraded from.
VERSIONS = ("1.19.1-1", "1.20.0-1")
SOURCES = Path(__file__).parent / "nvidia_ctk"
LABEL = {"Origin": "https://nvidia.github.io/libnvidia-container", "Label": "NVIDIA CORPORATION"}
# As the real one does on a first installation; its preset enables both units.
POSTINST = """#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
systemctl daemon-reload || true
if [ -z "$2" ]; then systemctl enable --quiet --now nvidia-cdi-refresh.path || true; fi
"""


def build(root: Path, home: Path) -> None:
    """Publish the repository below the web root."""
    publish(root / PATH / "stable" / "deb" / "amd64", list(packages()), home, LABEL)
    (root / PATH / "gpgkey").write_bytes(gpg(home, "--armor", "--export"))
    (root / PATH / "fingerprint").write_text(fingerprint(home))


def key(into: Path) -> None:
    """Make the key that signs it, once for all web roots."""
    make_key(into, "the lab's stand-in for NVIDIA's containers <root@localhost>")


def packages() -> Iterator[Package]:
    """Every version of the four."""
    for version in VERSIONS:
        units = {
            f"/usr/lib/systemd/system/{name}": ((SOURCES / name).read_text(), 0o644)
            for name in ("nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path")
        }
        yield Package(
            "nvidia-container-toolkit-base",
            version,
            {"Depends": "python3"},
            {
                "/usr/bin/nvidia-ctk": ((SOURCES / "nvidia-ctk").read_text(), 0o755),
                "/usr/bin/nvidia-container-runtime": ('#!/bin/sh\nexec runc "$@"\n', 0o755),
                **units,
            },
            {"postinst": POSTINST},
        )
        yield Package(
            "nvidia-container-toolkit",
            version,
            {
                "Depends": f"nvidia-container-toolkit-base (= {version}), "
                f"libnvidia-container-tools (= {version})"
            },
        )
        yield Package(
            "libnvidia-container-tools", version, {"Depends": f"libnvidia-container1 (= {version})"}
        )
        yield Package("libnvidia-container1", version)
