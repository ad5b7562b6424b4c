"""Repositories of third parties, trusted by one pinned key, and packages at pinned versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.kit.commands import Commands
from fleet.kit.facts.apt import ExistingFiles, Installed, KeyringFingerprints, PackageVersions
from fleet.kit.files import ManagedFile, install_files

APT_GET = "DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"


@dataclass(frozen=True)
class AptRepository:
    """A repository: where it is, and the fingerprint of the one key that may sign it.

    `suites` is a suite, or a path that ends with `/` for a flat repository without components.
    `key` is where the key is fetched, or the armored key itself. `replaces` are the names of other
    source files of the same repository: apt refuses two with different keys.
    """

    name: str
    url: str
    suites: str
    components: str
    key: str
    fingerprint: str
    replaces: tuple[str, ...] = ()

    @property
    def keyring(self) -> str:
        """The keyring that holds its key and no other."""
        return f"/etc/apt/keyrings/llm-fleet-{self.name}.gpg"

    @property
    def source(self) -> ManagedFile:
        """Its deb822 source file."""
        fields = {
            "Types": "deb",
            "URIs": self.url,
            "Suites": self.suites,
            "Components": self.components,
            "Signed-By": self.keyring,
        }
        lines = [f"{name}: {value}\n" for name, value in fields.items() if value]
        return ManagedFile(
            f"/etc/apt/sources.list.d/llm-fleet-{self.name}.sources",
            "".join(["# Managed by llm-fleet: changes are overwritten.\n", *lines]),
        )

    @property
    def replaced(self) -> list[str]:
        """Paths of the source files that it stands in place of."""
        return [f"/etc/apt/sources.list.d/{name}" for name in self.replaces]


@operation()
def trust_repository(repository: AptRepository) -> Commands:
    """Have `repository` among apt's sources, signed by the key of its fingerprint and no other.

    A key with another fingerprint is named, with the expected one, and nothing is changed. Needs
    `gpg` on the host. The package lists are not fetched here.
    """
    trusted = host.get_fact(KeyringFingerprints, path=repository.keyring)
    if trusted != (repository.fingerprint,):
        yield from _install_key(repository)
    if old := host.get_fact(ExistingFiles, paths=repository.replaced):
        yield StringCommand("rm -f", *[QuoteString(path) for path in old])
    yield from install_files._inner(files=[repository.source])


def _install_key(repository: AptRepository) -> Commands:
    stage = "/run/llm-fleet/key"
    key = f"{stage}/key"
    yield StringCommand("rm -rf", stage, "&& install -d -m 700 /run/llm-fleet", stage)
    if repository.key.startswith(("http://", "https://")):
        # With apt's own proxies and certificates: who reaches the packages reaches the key.
        yield StringCommand(
            "/usr/lib/apt/apt-helper download-file", QuoteString(repository.key), key
        )
    else:
        yield StringCommand("cat >", key, _stdin=repository.key.splitlines())
    gpg = f"gpg --homedir {stage} --batch --no-autostart --quiet"
    expected = repository.fingerprint
    # The keyring gets this one key, whatever else the file may hold.
    yield StringCommand(
        f"{gpg} --import {key};",
        f"actual=$({gpg} --list-keys --with-colons |",
        "awk -F: '/^pub/ {p = 1} /^fpr/ && p {print $10; p = 0}');",
        f"printf '%s\\n' \"$actual\" | grep -qx {expected} || {{ rm -rf {stage};",
        "printf '%s: the key %s has the fingerprint %s, expected is %s: not trusted\\n'",
        QuoteString(repository.name),
        QuoteString(repository.key if repository.key.startswith("http") else "given"),
        f'"${{actual:-(none, it is no key)}}" {expected} >&2; exit 1; }}',
    )
    new = QuoteString(f"{repository.keyring}.new")
    yield StringCommand(
        f"install -d -m 755 /etc/apt/keyrings && {gpg} --yes --output {stage}/keyring",
        f"--export {expected} && install -m 644 {stage}/keyring",
        new,
        "&& mv -f",
        new,
        QuoteString(repository.keyring),
        f"&& rm -rf {stage}",
    )


@operation()
def forget_repository(repository: AptRepository) -> Commands:
    """Have neither the source nor the key of `repository`; installed packages stay."""
    paths = [repository.source.path, repository.keyring]
    if found := host.get_fact(ExistingFiles, paths=paths):
        yield StringCommand("rm -f", *[QuoteString(path) for path in found])


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
        words = [QuoteString(f"{name}={wanted}") for name, wanted in versions.items()]
        words += [QuoteString(f"{name}-") for name in leaving]
        install = StringCommand(
            f"{APT_GET} install -y --no-install-recommends --allow-downgrades",
            "--allow-change-held-packages",
            *words,
        )
        # An installation that was cut short leaves dpkg half-configured, which stops apt.
        yield StringCommand("dpkg --configure -a --force-confold")
        yield StringCommand(f"{APT_GET} update")
        yield masked(install, masked_unit) if masked_unit else install
    unheld = [
        name
        for name in versions
        if name in wrong or not (name in installed and installed[name].held)
    ]
    if unheld:
        yield StringCommand("apt-mark hold", *[QuoteString(name) for name in unheld], ">/dev/null")
    if not (wrong or leaving or unheld):
        host.noop(f"{', '.join(versions)} installed and held")


def _is(package: Installed | None, wanted: str) -> bool:
    if package is None:
        return False
    if wanted.endswith("*"):
        return package.version.startswith(wanted[:-1])
    return package.version == wanted


def masked(install: StringCommand, unit: str) -> StringCommand:
    """`install`, during which `unit` cannot be started; a unit that runs goes on."""
    name = QuoteString(unit)
    return StringCommand(
        "systemctl mask --runtime --quiet", name, ";", install, "; rc=$?;",
        "systemctl unmask --runtime --quiet", name, "; exit $rc",
    )  # fmt: skip


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
    yield StringCommand("dpkg --configure -a --force-confold")
    yield StringCommand(f"{APT_GET} update")
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
    install = StringCommand(
        f"{APT_GET} install -y --no-install-recommends --allow-change-held-packages", *words
    )
    yield masked(install, masked_unit) if masked_unit else install


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (2, 26, 1) of `2.26.1-4`; an epoch is left out."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
