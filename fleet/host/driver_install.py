#!/usr/bin/env python3
"""Installs the NVIDIA driver's packages on this host, or says why it cannot and cleans up.

Runs in a unit of its own: a build takes minutes and must outlive the connection that started it.
Its last lines in the journal are for the operator. When the module does not build, the compiler's
own error and the place of the whole log are named, and the packages go again, so that dpkg is
configured and apt usable; what was installed before comes back. Uses the standard library only.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

APT = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600"]
CHANGE = ["--allow-change-held-packages", "--allow-downgrades"]
MODULES = ("nvidia", "nvidia-current-open", "nvidia-current")
DKMS = Path("/var/lib/dkms")


class Failure(Exception):  # noqa: N818 - an answer to the operator
    """Why the driver is not installed, for the operator."""


def main() -> int:
    """Install; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", action="append", default=[], help="in the order of the plan")
    parser.add_argument("--pinning", action="append", default=[], help="installed first")
    parser.add_argument("--fabric", action="append", default=[], help="at the driver's version")
    parser.add_argument("--dkms", action="store_true", help="the module is built on this host")
    parser.add_argument("--hold", action="store_true")
    parser.add_argument(
        "--logs", type=Path, required=True, help="where a failed build's log is kept"
    )
    options = parser.parse_args()
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    try:
        install(options)
    except Failure as failure:
        print(failure, file=sys.stderr)  # noqa: T201 - the journal
        return 1
    return 0


def install(options: argparse.Namespace) -> None:
    """Have everything installed, at one version, for the running kernel."""
    kernel = output(["uname", "-r"])
    wanted = [*options.pinning, *options.package]
    # A run that was cut short. To configure a module's package is to build it: it begins anew.
    if left := half_installed(wanted):
        run(["dpkg", "--purge", "--force-depends", *left], check=False)
    run(["dpkg", "--configure", "-a", "--force-confold"], check=False)
    run([*APT, "update"])
    if options.dkms:
        install_headers(kernel, options.logs)
    before = installed_versions([*wanted, *options.fabric])
    for names in (options.pinning, options.package):
        if names and not apt_install(names):
            give_up(kernel, wanted, before, options.logs)
    if not module_version(kernel):
        # The packages are there, and the kernel came after them.
        if options.dkms:
            run(["dkms", "autoinstall", "-k", kernel], check=False)
        if not module_version(kernel):
            give_up(kernel, wanted, before, options.logs)
    version = module_version(kernel)
    if options.fabric and not apt_install([f"{name}={version}*" for name in options.fabric]):
        raise Failure(
            f"{', '.join(options.fabric)} {version} cannot be installed (apt says why above). The "
            "fabric manager must have exactly the driver's version; set driver_version to one that "
            "the repository has both of."
        )
    if shutil.which("update-initramfs") and Path(f"/boot/initrd.img-{kernel}").exists():
        run(["update-initramfs", "-u", "-k", kernel])
    names = [*options.package, *options.fabric]
    run(["apt-mark", "hold" if options.hold else "unhold", *names])
    print(f"driver {version} is installed for kernel {kernel}")  # noqa: T201


def install_headers(kernel: str, logs: Path) -> None:
    """Have the running kernel's headers, and those of later kernels of the same flavor."""
    packages = [f"linux-headers-{kernel}"]
    flavor = kernel_flavor(kernel)
    if flavor and installed_versions([f"linux-image-{flavor}"]):
        packages.append(f"linux-headers-{flavor}")
    if Path(f"/lib/modules/{kernel}/build/Makefile").exists() and len(packages) == 1:
        return
    if not has_candidate(packages[0]):
        raise Failure(
            f"{packages[0]} is not in the package lists, so no module can be built for the running "
            "kernel. Upgrade the kernel, reboot, and deploy again."
        )
    before = installed_versions(packages)
    if not apt_install(packages):
        # They have DKMS build what is there already, and fail with it.
        give_up(kernel, packages, before, logs)


def give_up(kernel: str, wanted: list[str], before: dict[str, str], logs: Path) -> NoReturn:
    """Say what failed, and leave dpkg configured and apt usable.

    Raises:
        Failure: always.
    """
    log = newest_build_log(kernel)
    message = "The driver's packages cannot be installed; apt says why above."
    missing = [name for name in wanted if not has_candidate(name)]
    if log is not None:
        logs.mkdir(parents=True, exist_ok=True)
        kept = logs / f"driver-build-{kernel}.log"
        text = log.read_text(errors="replace")
        kept.write_text(text)
        message = (
            f"The driver's module did not build for kernel {kernel}:\n  {first_error(text)}\n"
            f"The whole log is {kept}. Run another kernel or another driver version."
        )
    elif missing:
        message = (
            f"{', '.join(missing)}: not in the package lists. NVIDIA's repository may lack this "
            "version or branch; Debian's own driver needs the components contrib, non-free and "
            "non-free-firmware in the apt sources."
        )
    # First what does not build: to configure it is to try once more.
    new = sorted(set(present(wanted)) - set(before))
    if new:
        run([*APT, "purge", "-y", *new], check=False)
    if before:
        again = [f"{name}={version}" for name, version in before.items()]
        run([*APT, "install", "-y", *CHANGE, "--no-install-recommends", *again], check=False)
    run(["dpkg", "--configure", "-a"], check=False)
    run([*APT, "install", "-y", "--fix-broken"], check=False)
    audit = output(["dpkg", "--audit"])
    message += f"\ndpkg needs a hand:\n{audit}" if audit else "\nThe packages were taken back."
    raise Failure(message)


def newest_build_log(kernel: str) -> Path | None:
    """The log of the last DKMS build of an NVIDIA module that failed; None when there is none."""
    logs = [
        log
        for log in DKMS.glob("nvidia*/*/build/make.log")
        if f"{kernel}" in log.read_text(errors="replace")[:2000]
    ]
    return max(logs, key=lambda log: log.stat().st_mtime, default=None)


def first_error(text: str) -> str:
    """The first line in which the compiler, or else make, names an error."""
    lines = text.splitlines()
    for pattern in (r"(^|[\s:])(fatal )?error:", r"undefined!|No rule to make|\*\*\*"):
        for line in lines:
            if re.search(pattern, line):
                return re.sub(r"^.*/build/", "", line.strip())
    return lines[-1].strip() if lines else "the log is empty"


def kernel_flavor(kernel: str) -> str:
    """`generic` of `6.8.0-45-generic`, `cloud-amd64` of `6.12.94+deb13-cloud-amd64`."""
    return re.sub(r"^[0-9.]+(\+[a-z0-9.]+|-[0-9.]+)*-?", "", kernel)


def module_version(kernel: str) -> str:
    """Version of the module that lies on the disk for `kernel`; empty when there is none."""
    for name in MODULES:
        version = output(["modinfo", "-k", kernel, "-F", "version", name])
        if version:
            return version
    return ""


def present(names: Iterable[str]) -> dict[str, str]:
    """Those of `names` that dpkg knows in any state but removed."""
    return status(names, lambda state: state not in ("not-installed", "config-files"))


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Package to its installed version."""
    return status(names, lambda state: state == "installed")


def half_installed(names: Iterable[str]) -> list[str]:
    """Those of `names` that an earlier run left unconfigured."""
    return list(status(names, lambda s: s in ("half-configured", "half-installed", "unpacked")))


def status(names: Iterable[str], holds: Callable[[str], bool]) -> dict[str, str]:
    """Package to version, for those of `names` whose dpkg state `holds`."""
    found = {}
    shown = output(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\n", *names]
    )
    for line in shown.splitlines():
        name, state, *version = line.split()
        if holds(state):
            found[name] = version[0] if version else ""
    return found


def has_candidate(name: str) -> bool:
    """Whether apt could install `name`."""
    return bool(re.search(r"Candidate: (?!\(none\))", output(["apt-cache", "policy", name])))


def apt_install(names: Iterable[str]) -> bool:
    """Whether `names` are installed now."""
    return run([*APT, "install", "-y", *CHANGE, "--no-install-recommends", *names], check=False)


def run(argv: list[str], *, check: bool = True) -> bool:
    """Run a program whose output belongs into the journal; whether it succeeded."""
    print(f"+ {' '.join(argv)}", flush=True)  # noqa: T201
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode == 0
    if check and not done:
        raise Failure(f"`{' '.join(argv)}` failed; its own words are above.")
    return done


def output(argv: list[str]) -> str:
    """What a program printed, without the space around it; its failure is an empty answer."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
