"""NVIDIA's driver repositories: small packages with the real names, versions and relations.

They stand for developer.download.nvidia.com/compute/cuda/repos/<distribution>/x86_64. Kept: the
flat layout, the index signed with a key that lies beside it, the label, the pinning packages,
modules that DKMS really builds against the running kernel's real headers, and one version all over.
The key is the lab's own, and so is one version of each: its module does not compile. Debian 13 has
no 580, as the real repository has none.
"""

from collections.abc import Iterator
from pathlib import Path

from lab.upstream.apt import Package, fingerprint, make_key, publish

PATH = "compute/cuda/repos"
# The active branches of 2026-08-17; the older one of a branch is there to be upgraded from.
VERSIONS = {
    "debian12": ("580.159.03", "580.178.04", "595.91.07"),
    "debian13": ("590.48.01", "595.71.05", "595.91.07", "610.57.04"),
}
BROKEN = {"debian12": "580.170.01", "debian13": "595.80.01"}
LABEL = {"Origin": "NVIDIA", "Label": "NVIDIA CUDA", "Architecture": "x86_64"}
SOURCES = Path(__file__).parent / "nvidia"

MODULE = """/* The lab's stand-in for a module of NVIDIA's, with its metadata. */
#include <linux/module.h>
%s
MODULE_LICENSE("%s");
MODULE_VERSION("%s");
MODULE_DESCRIPTION("stand-in");
"""
# What 550.163.01 really says on kernels from 6.12.117 on has the same form.
DEFECT = "int broken(void) { return no_such_function_in_this_kernel(1); }"
DKMS = """PACKAGE_NAME="nvidia"
PACKAGE_VERSION="{version}"
MAKE[0]="make -C ${{kernel_source_dir}} M=${{dkms_tree}}/nvidia/{version}/build modules"
CLEAN="true"
BUILT_MODULE_NAME[0]="nvidia"
BUILT_MODULE_NAME[1]="nvidia-uvm"
DEST_MODULE_LOCATION[0]="/updates/dkms"
DEST_MODULE_LOCATION[1]="/updates/dkms"
AUTOINSTALL="yes"
"""
# As dh_dkms writes them.
POSTINST = """#!/bin/sh
set -e
[ "$1" != configure ] || /usr/lib/dkms/common.postinst nvidia {version} /usr/share/{name} "" $2
"""
PRERM = """#!/bin/sh
set -e
[ -z "$(dkms status -m nvidia -v {version})" ] || dkms remove -m nvidia -v {version} --all || true
"""


def build(root: Path, home: Path) -> None:
    """Publish a repository for each distribution below the web root."""
    for distribution in VERSIONS:
        folder = root / PATH / distribution / "x86_64"
        publish(folder, list(packages(distribution)), home, LABEL)
    (root / PATH / "fingerprint").write_text(fingerprint(home))


def key(into: Path) -> None:
    """Make the key that signs them, once for all web roots."""
    make_key(into, "the lab's stand-in for NVIDIA <root@localhost>")


def packages(distribution: str) -> Iterator[Package]:
    """Every package of a distribution's repository."""
    versions = (*VERSIONS[distribution], BROKEN[distribution])
    for suffix in sorted({version.split(".")[0] for version in versions} | set(versions)):
        yield _pinning(suffix)
    for version in versions:
        full = f"{version}-1"
        for name, license_ in (
            ("nvidia-kernel-open-dkms", "Dual MIT/GPL"),
            ("nvidia-kernel-dkms", "NVIDIA"),
        ):
            yield _module(name, license_, version)
        either = " | ".join(
            f"{name} (= {full})" for name in ("nvidia-kernel-open-dkms", "nvidia-kernel-dkms")
        )
        yield Package(
            "nvidia-driver-cuda",
            full,
            {"Depends": f"python3, {either}"},
            {"usr/bin/nvidia-smi": (_text("nvidia-smi", version), 0o755)},
        )
        yield Package(
            "nvidia-persistenced",
            full,
            files={"usr/bin/nvidia-persistenced": (_text("nvidia-persistenced", version), 0o755)},
        )
        yield Package(
            "nvidia-fabricmanager",
            full,
            files={
                "usr/bin/nv-fabricmanager": (_text("nv-fabricmanager", version), 0o755),
                "usr/lib/systemd/system/nvidia-fabricmanager.service": (
                    _text("nvidia-fabricmanager.service", version),
                    0o644,
                ),
            },
        )
        yield Package("libnvidia-nscq", full)


def _pinning(suffix: str) -> Package:
    name = f"nvidia-driver-pinning-{suffix}"
    pin = (
        "Package: *nvidia* *cuda-drivers*\n"
        f"Pin: version {suffix}{'*' if '.' in suffix else '.*'}\nPin-Priority: 1001\n"
    )
    one = "nvidia-driver-pinning"
    return Package(
        name,
        f"{suffix}-1",
        {"Provides": one, "Conflicts": one, "Replaces": one},
        {"etc/apt/preferences.d/nvidia-driver-pin": (pin, 0o644)},
        architecture="all",
    )


def _module(name: str, license_: str, version: str) -> Package:
    source = f"usr/src/nvidia-{version}"
    defect = DEFECT if version in BROKEN.values() else ""
    if license_ == "NVIDIA":
        license_ = "Proprietary"  # what the kernel shows of it is NVIDIA; it builds the same
    return Package(
        name,
        f"{version}-1",
        {
            "Depends": "dkms",
            "Provides": "nvidia-kernel",
            "Conflicts": "nvidia-kernel",
            "Replaces": "nvidia-kernel",
        },
        {
            f"{source}/nvidia.c": (MODULE % (defect, license_, version), 0o644),
            f"{source}/nvidia-uvm.c": (MODULE % ("", license_, version), 0o644),
            f"{source}/Makefile": ("obj-m := nvidia.o nvidia-uvm.o\n", 0o644),
            f"{source}/dkms.conf": (DKMS.format(version=version), 0o644),
        },
        {
            "postinst": POSTINST.format(version=version, name=name),
            "prerm": PRERM.format(version=version),
        },
    )


def _text(name: str, version: str) -> str:
    return (SOURCES / name).read_text().replace("@VERSION@", version)
