"""Repositories of third parties, each trusted by one pinned key."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.kit.apt import sources_changed
from fleet.kit.commands import Commands
from fleet.kit.facts.apt import ExistingFiles, KeyringFingerprints
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.paths import RUN, STAGE


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
    # Whatever was changed: apt reads its lists by its sources, and trusts them by their keys.
    sources_changed()


def _install_key(repository: AptRepository) -> Commands:
    stage = f"{STAGE}-key"
    key = f"{stage}/key"
    yield StringCommand("rm -rf", stage, "&& install -d -m 700", RUN, stage)
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
        sources_changed()
