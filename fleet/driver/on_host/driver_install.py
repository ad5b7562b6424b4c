#!/usr/bin/env python3
"""Installs the NVIDIA driver's packages on this host, or says why it cannot and cleans up.

Runs in a unit of its own: a build takes minutes and must outlive the connection that started it.
Its last lines in the journal are for the operator. When the module does not build for the running
kernel, the compiler's own error and the place of the whole log are named, and the packages go
again, so that dpkg is configured and apt usable; what was installed before comes back. Where it
does not build for another kernel only, that is said, and it stays. Uses the standard library only.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from common import log, make_directory, say
from driver_kernel import kernel_flavor

# Waits for who holds a lock of apt or dpkg, and keeps them from asking; it lies beside this one.
WHEN_APT_IS_FREE = [str(Path(__file__).with_name("when-apt-is-free")), "600"]
CHANGE = ["--allow-change-held-packages", "--allow-downgrades"]
BOOT = Path("/boot")
# Bytes that stay free: a module is built there, and an initramfs made.
RESERVE = 2_000_000_000
MODULES = ("nvidia", "nvidia-current-open", "nvidia-current")
DKMS = Path("/var/lib/dkms")
# A log, and when it was written, in nanoseconds: only whether that is another time counts.
BuildLogs = dict[Path, int]
# The driver's packages, whichever branch, source and modules. The container toolkit's are others.
DRIVER = re.compile(r"(libnvidia-|nvidia-|libcuda1$|linux-modules-nvidia-)(?!container)")
# Below the logs: what an installation that succeeded has to say.
WARNING = "driver-warning"
# While it is there, DKMS's hooks of packages build nothing.
NO_BUILDS = Path("/etc/dkms/no-autoinstall")
NO_BUILDS_OURS = "llm-fleet: only while packages are configured\n"


class Failure(Exception):  # noqa: N818 - an answer to the operator
    """Why the driver is not installed, for the operator."""


def main() -> int:
    """Install; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", action="append", default=[], help="in the order of the plan")
    parser.add_argument("--pinning", action="append", default=[], help="installed first")
    parser.add_argument("--fabric", action="append", default=[], help="at the driver's version")
    parser.add_argument("--stay", default="", help="branch of which the installed version is kept")
    parser.add_argument("--dkms", action="store_true", help="the module is built on this host")
    parser.add_argument("--hold", action="store_true")
    parser.add_argument(
        "--logs", type=Path, required=True, help="where a failed build's log is kept"
    )
    options = parser.parse_args()
    try:
        install(options)
    except Failure as failure:
        log(str(failure))
        return 1
    return 0


def install(options: argparse.Namespace) -> None:
    """Have everything installed, at one version, for the running kernel."""
    kernel, began = output(["uname", "-r"]), build_logs()
    clean_up([*options.pinning, *options.package], options.logs)
    run(["apt-get", "update"])
    refuse_without_room([*options.pinning, *options.package, *options.fabric])
    if options.dkms:
        install_headers(kernel, began, options.logs)
    install_module(options, kernel, began)
    version = module_version(kernel)
    if options.dkms:
        install_later_headers(kernel, began, options.logs)
    if options.fabric and not apt_install([f"{name}={version}*" for name in options.fabric]):
        raise Failure(
            f"{', '.join(options.fabric)} {version} cannot be installed (apt says why above). The "
            "fabric manager must have exactly the driver's version; set driver_version to one that "
            "the repository has both of."
        )
    refresh_initramfs(kernel)
    names = [*options.package, *options.fabric]
    run(["apt-mark", "hold" if options.hold else "unhold", *names])
    say(f"driver {version} is installed for kernel {kernel}")


def refuse_without_room(names: list[str]) -> None:
    """Refuse what would fill the disk: dpkg finds out in the middle, with packages half installed.

    apt looks at the room for what it fetches, and at none for what is unpacked.
    """
    planned = output(["apt-get", "-s", "install", *CHANGE, "--no-install-recommends", *names])
    found = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", planned, re.MULTILINE)
    if not found:  # nothing to install, or apt says below why it cannot
        return
    about = output(["apt-cache", "show", *(f"{name}={version}" for name, version in found)])
    fields = re.findall(r"^(Installed-Size|Size): ([0-9]{1,12})$", about, re.MULTILINE)
    need = sum(int(count) * (1 if field == "Size" else 1024) for field, count in fields)
    free = min(shutil.disk_usage(place).free for place in ("/usr", "/var"))
    if need + RESERVE > free:
        raise Failure(
            f"The driver's {len(found)} packages take {need / 1e9:.1f} GB, fetched and unpacked, "
            f"and {free / 1e9:.1f} GB are free in /usr and /var, where {RESERVE / 1e9:.0f} GB are "
            "to stay free: make room there. Nothing was installed."
        )


def refresh_initramfs(kernel: str) -> None:
    """Have the running kernel's initramfs without nouveau; a kernel without one needs nothing."""
    image = BOOT / f"initrd.img-{kernel}"
    if not image.exists():
        return
    if shutil.which("update-initramfs"):
        run(["update-initramfs", "-u", "-k", kernel])
    elif shutil.which("dracut"):
        run(["dracut", "--force", str(image), kernel])
    else:
        raise Failure(
            f"Neither update-initramfs nor dracut is here to write {image} anew: it may load "
            "nouveau before NVIDIA's driver. Write it anew and deploy again."
        )


def clean_up(wanted: list[str], logs: Path) -> None:
    """Begin anew after a run that was cut short: to configure a module's package is to build it."""
    (logs / WARNING).unlink(missing_ok=True)
    if NO_BUILDS.exists() and NO_BUILDS.read_text() == NO_BUILDS_OURS:
        NO_BUILDS.unlink()
    if left := half_installed(wanted):
        run(["dpkg", "--purge", "--force-depends", *left], check=False)
    run(["dpkg", "--configure", "-a"], check=False)


def install_module(options: argparse.Namespace, kernel: str, began: BuildLogs) -> None:
    """Have the driver's packages, and their module for the running kernel, or what was before."""
    wanted = [*options.pinning, *options.package]
    for name in options.package:
        # Ubuntu's signed modules: one package for each kernel.
        if name.endswith(f"-{kernel}") and not has_candidate(name):
            raise Failure(
                f"There is no signed module for the running kernel {kernel} ({name} is not in the "
                "package lists). Upgrade the kernel, reboot, and deploy again."
            )
    held = [name for name in output(["apt-mark", "showhold"]).split() if DRIVER.match(name)]
    before = installed_versions([*wanted, *options.fabric, *held])
    with let_go(held):
        for names in (options.pinning, stay(options.package, options.stay)):
            if names and not apt_install(names) and not built_for_others(kernel, began, names):
                give_up(kernel, began, wanted, before, options.logs)
        if not module_version(kernel) and options.dkms:
            # The packages are there, and the kernel came after them.
            run(["dkms", "autoinstall", "-k", kernel], check=False)
        if not module_version(kernel):
            give_up(kernel, began, wanted, before, options.logs)


@contextmanager
def let_go(held: list[str]) -> Iterator[None]:
    """Without the holds of `held` meanwhile: apt removes none of them, nor for what replaces it."""
    if held:
        run(["apt-mark", "unhold", *held])
    try:
        yield
    finally:
        if there := installed_versions(held):
            run(["apt-mark", "hold", *there])


def stay(names: list[str], branch: str) -> list[str]:
    """`names` at the version that the host has of `branch` already; bare where it has none.

    A reason to install, such as a missing hold, is none to move: a bare name is apt's newest.
    """
    there = installed_versions(names)
    versions = {version.rpartition(":")[2].partition("-")[0] for version in there.values()}
    versions = {version for version in versions if version.split(".")[0] == branch}
    missing = [name for name in names if name not in there]
    if len(versions) != 1:
        return names
    [version] = versions
    if any(version not in output(["apt-cache", "madison", name]) for name in missing):
        return names
    return [f"{name}={there.get(name, f'{version}*')}" for name in names]


def install_headers(kernel: str, began: BuildLogs, logs: Path) -> None:
    """Have the running kernel's headers, and no others yet: DKMS builds for all that are there."""
    package = f"linux-headers-{kernel}"
    if Path(f"/lib/modules/{kernel}/build/Makefile").exists():
        return
    if not has_candidate(package):
        raise Failure(
            f"{package} is not in the package lists, so no module can be built for the running "
            "kernel. Upgrade the kernel, reboot, and deploy again."
        )
    if not apt_install([package]):
        # They have DKMS build what is there already, and fail with it.
        give_up(kernel, began, [package], {}, logs)


def install_later_headers(kernel: str, began: BuildLogs, logs: Path) -> None:
    """Have the headers of later kernels come with them, and say where the module does not build."""
    flavor = kernel_flavor(kernel)
    package = f"linux-headers-{flavor}"
    if (
        flavor
        and installed_versions([f"linux-image-{flavor}"])
        and not installed_versions([package])
        and not apt_install([package])
    ):
        built_for_others(kernel, began, [package])
    if log := newest_build_log(began):
        message = f"{keep_log(log, logs)}\nIt is there for the running kernel {kernel}."
        say(message)
        (logs / WARNING).write_text(f"{message}\n")


def built_for_others(kernel: str, began: BuildLogs, names: list[str]) -> bool:
    """Whether `names` are installed when nothing is built with them.

    Only where the build for another kernel than the running one has failed: then dpkg has to be
    brought to an end without a build, and the running kernel's own may still follow.
    """
    log = newest_build_log(began)
    if log is None or kernel_of(log) == kernel:
        return False
    ours = not NO_BUILDS.exists()
    if ours:
        NO_BUILDS.write_text(NO_BUILDS_OURS)
    try:
        run(["dpkg", "--configure", "-a"], check=False)
        return apt_install(names)
    finally:
        if ours:
            NO_BUILDS.unlink()


def give_up(
    kernel: str, began: BuildLogs, wanted: list[str], before: dict[str, str], logs: Path
) -> NoReturn:
    """Say what failed, and leave dpkg configured and apt usable.

    Raises:
        Failure: always.
    """
    log = newest_build_log(began)
    message = "The driver's packages cannot be installed; apt says why above."
    missing = [name for name in wanted if not has_candidate(name)]
    if log is not None:
        message = keep_log(log, logs)
    elif missing:
        message = (
            f"{', '.join(missing)}: not in the package lists. NVIDIA's repository may lack this "
            "version or branch; Debian's own driver needs the components contrib, non-free and "
            "non-free-firmware in the apt sources."
        )
    # First what does not build: to configure it is to try once more.
    new = sorted(set(present(wanted)) - set(before))
    if new:
        run(["apt-get", "purge", "-y", *new], check=False)
    if before:
        again = [f"{name}={version}" for name, version in before.items()]
        run(["apt-get", "install", "-y", *CHANGE, "--no-install-recommends", *again], check=False)
    run(["dpkg", "--configure", "-a"], check=False)
    run(["apt-get", "install", "-y", "--fix-broken"], check=False)
    audit = output(["dpkg", "--audit"])
    message += f"\ndpkg needs a hand:\n{audit}" if audit else "\nThe packages were taken back."
    raise Failure(message)


def build_logs() -> BuildLogs:
    """The logs of builds of NVIDIA modules that failed, whenever that was."""
    # DKMS moves the log of a build that succeeds.
    return {log: log.stat().st_mtime_ns for log in DKMS.glob("nvidia*/*/build/make.log")}


def newest_build_log(began: BuildLogs) -> Path | None:
    """The log of the last build of an NVIDIA module that failed since `began`; None without one."""
    logs = build_logs()
    failed = [log for log, changed in logs.items() if changed != began.get(log)]
    return max(failed, key=lambda log: logs[log], default=None)


def kernel_of(log: Path) -> str:
    """The kernel of a build: `DKMS make.log for nvidia/580.178.04 for kernel KERNEL (x86_64)`."""
    found = re.search(r" for kernel (\S+)", log.read_text(errors="replace"))
    return found[1] if found else ""


def keep_log(log: Path, logs: Path) -> str:
    """Keep a failed build's log in `logs`; what is to be said of it."""
    kernel, text = kernel_of(log) or "unknown", log.read_text(errors="replace")
    make_directory(logs)
    kept = logs / f"driver-build-{kernel}.log"
    kept.write_text(text)
    return (
        f"The driver's module did not build for kernel {kernel}:\n  {first_error(text)}\n"
        f"The whole log is {kept}. Run another kernel or another driver version."
    )


def first_error(text: str) -> str:
    """The first line in which the compiler, or else make, names an error."""
    lines = text.splitlines()
    for pattern in (r"(^|[\s:])(fatal )?error:", r"undefined!|No rule to make|\*\*\*"):
        for line in lines:
            if re.search(pattern, line):
                return re.sub(r"^.*/build/", "", line.strip())
    return lines[-1].strip() if lines else "the log is empty"


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
    names, found = list(names), {}
    if not names:
        return {}  # dpkg-query would tell of every package
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
    return run(
        ["apt-get", "install", "-y", *CHANGE, "--no-install-recommends", *names], check=False
    )


def run(argv: list[str], *, check: bool = True) -> bool:
    """Run a program whose output belongs into the journal; whether it succeeded."""
    say(f"+ {' '.join(argv)}")
    words = [*WHEN_APT_IS_FREE, *argv] if argv[0] in ("apt-get", "apt-mark", "dpkg") else argv
    done = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode == 0
    if check and not done:
        raise Failure(f"`{' '.join(argv)}` failed; its own words are above.")
    return done


def output(argv: list[str]) -> str:
    """What a program printed, without the space around it; its failure is an empty answer."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
