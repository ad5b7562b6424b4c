"""Packages: the distribution's, not below a version, or at pinned ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.facts.deb import DebPackages

from fleet.kit.apt import apt, refresh
from fleet.kit.commands import Commands
from fleet.kit.facts.apt import Installed, PackageVersions
from fleet.kit.planned import will_write

INSTALL = "apt-get install -y --no-install-recommends"


@operation()
def install_packages(packages: list[str], masked_unit: str | None = None) -> Commands:
    """Have `packages` installed; the package lists are fetched only when something is missing.

    `masked_unit` is kept from starting during the installation, with the configuration that the
    package brings.
    """
    missing = sorted(set(packages) - set(host.get_fact(DebPackages)))
    if not missing:
        host.noop(f"{', '.join(packages)} installed")
        return
    yield from refresh()
    yield from apt(INSTALL, *map(QuoteString, missing), masked_unit=masked_unit)


@operation()
def install_versions(
    versions: Mapping[str, str],
    *,
    instead_of: list[str] | None = None,
    masked_unit: str | None = None,
) -> Commands:
    """Have the packages of `versions` (name to version) installed at them, and held.

    A version that ends with `*` stands for every rebuild of it. Those of `instead_of` that are
    installed are removed in the same transaction, never purged: their data stays. `masked_unit` is
    kept from starting, with the configuration that the packages bring, until they are all there.
    """
    installed = host.get_fact(PackageVersions, packages=[*versions, *(instead_of or [])])
    leaving = [name for name in instead_of or [] if name in installed]
    wrong = [name for name, wanted in versions.items() if not _is(installed.get(name), wanted)]
    if wrong or leaving:
        will_write([masked_unit] if masked_unit else [])
        words = [QuoteString(f"{name}={wanted}") for name, wanted in versions.items()]
        words += [QuoteString(f"{name}-") for name in leaving]
        yield from refresh()
        yield from apt(
            f"{INSTALL} --allow-downgrades --allow-change-held-packages",
            *words,
            masked_unit=masked_unit,
        )
    unheld = [
        name
        for name in versions
        if name in wrong or not (name in installed and installed[name].held)
    ]
    if unheld:
        yield from apt("apt-mark hold", *map(QuoteString, unheld))
    if not (wrong or leaving or unheld):
        host.noop(f"{', '.join(versions)} installed and held")


def _is(package: Installed | None, wanted: str) -> bool:
    if package is None:
        return False
    if wanted.endswith("*"):
        return package.version.startswith(wanted[:-1])
    return package.version == wanted


@operation()
def install_at_least(
    package: str,
    least: str,
    also: list[str],
    *,
    instead_of: list[str] | None = None,
    masked_unit: str | None = None,
) -> Commands:
    """Have the distribution's `package`, not below version `least`, and those of `also`.

    What is too old is refused before anything is installed.
    `instead_of` and `masked_unit` are those of `install_versions`.
    """
    wanted = [package, *also]
    installed = host.get_fact(PackageVersions, packages=[*wanted, *(instead_of or [])])
    leaving = [name for name in instead_of or [] if name in installed]
    missing = [name for name in wanted if name not in installed]
    if package in installed and _numbers(installed[package].version) < _numbers(least):
        missing.append(package)
    if not (missing or leaving):
        host.noop(f"{', '.join(wanted)} installed")
        return
    will_write([masked_unit] if masked_unit else [])
    yield from refresh()
    yield StringCommand(
        "candidate=$(LC_ALL=C apt-cache policy",
        QuoteString(package),
        "| sed -n 's/^ *Candidate: //p');",
        f'dpkg --compare-versions "${{candidate:-0}}" ge {least} 2>/dev/null || {{',
        "printf '%s: the distribution has version %s, needed is %s or newer\\n'",
        QuoteString(package),
        '"${candidate:-(none)}"',
        least,
        ">&2; exit 1; }",
    )
    words = [*map(QuoteString, missing), *(QuoteString(f"{name}-") for name in leaving)]
    yield from apt(f"{INSTALL} --allow-change-held-packages", *words, masked_unit=masked_unit)


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (2, 26, 1) of `2.26.1-4`; an epoch is left out."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
