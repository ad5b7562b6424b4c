"""Distribution packages."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.facts.deb import DebPackages

from fleet.kit.commands import Commands


@operation()
def install_packages(packages: list[str], masked_unit: str | None = None) -> Commands:
    """Have `packages` installed; the package lists are fetched only when something is missing.

    `masked_unit` is kept from starting during the installation, with the configuration that the
    package brings; the mask is gone at the end, and after a reboot.
    """
    missing = sorted(set(packages) - set(host.get_fact(DebPackages)))
    if not missing:
        host.noop(f"{', '.join(packages)} installed")
        return
    names = [QuoteString(name) for name in missing]
    apt = "DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
    # An installation that was cut short leaves dpkg half-configured, which stops apt.
    yield _patient('[ -z "$(dpkg --audit)" ] || dpkg --configure -a --force-confold')
    yield _patient(f"{apt} update")
    install = StringCommand(f"{apt} install -y --no-install-recommends", *names)
    if masked_unit is None:
        yield install
        return
    unit = QuoteString(masked_unit)
    yield StringCommand(
        "systemctl mask --runtime --quiet", unit, ";", install, "; rc=$?;",
        "systemctl unmask --runtime --quiet", unit, "; exit $rc",
    )  # fmt: skip


def _patient(command: str) -> StringCommand:
    """`command` again and again for five minutes, while somebody else holds a lock of apt or dpkg.

    A fresh machine upgrades itself in its first minutes. apt's own timeout covers neither the lock
    of the package lists nor dpkg run by itself.
    """
    return StringCommand(
        f"n=0; until said=$({{ {command}; }} 2>&1); do",
        "case $said in *lock*) n=$((n + 1)) ;; *) n=60 ;; esac;",
        "[ $n -lt 60 ] || { printf '%s\\n' \"$said\" >&2; exit 1; }; sleep 5; done",
    )
