"""What apt of a host trusts, has and holds."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.render import host_program

WHEN_APT_IS_FREE = host_program("kit", "when-apt-is-free")


class AptHolder(FactBase[str]):
    """Who holds a lock of apt or dpkg, and which; empty while nobody does."""

    default = str

    @override
    def command(self) -> StringCommand:
        return StringCommand("sh -c", QuoteString(WHEN_APT_IS_FREE))

    @override
    def process(self, output: list[str]) -> str:
        return "\n".join(output)


class KeptFiles(FactBase[frozenset[str]]):
    """Configuration files that packages brought beside the ones of the operator, which stay."""

    default = frozenset

    @override
    def command(self) -> StringCommand:
        return StringCommand("find /etc -xdev -name '*.dpkg-dist' -o -name '*.ucf-dist'")

    @override
    def process(self, output: list[str]) -> frozenset[str]:
        return frozenset(output)


class KeyringFingerprints(FactBase[tuple[str, ...]]):
    """Fingerprints of the primary keys in the keyring `path`; empty without it, or without gpg."""

    default = tuple

    @override
    def command(self, path: str) -> StringCommand:
        return StringCommand(
            "gpg --batch --no-autostart --show-keys --with-colons",
            QuoteString(path),
            "2>/dev/null || true",
        )

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        return primary_fingerprints(output)


class ExistingFiles(FactBase[list[str]]):
    """Those of `paths` that exist, links included."""

    default = list

    @override
    def command(self, paths: list[str]) -> StringCommand:
        return StringCommand(
            "for f in ''",
            *[QuoteString(path) for path in paths],
            '; do if [ -e "$f" ] || [ -L "$f" ]; then echo "$f"; fi; done',
        )

    @override
    def process(self, output: list[str]) -> list[str]:
        return output


@dataclass(frozen=True)
class Installed:
    """An installed package: its version, and whether apt leaves it at it."""

    version: str
    held: bool


class PackageVersions(FactBase[dict[str, Installed]]):
    """Name to `Installed` for those of `packages` that are wholly installed."""

    default = dict

    @override
    def command(self, packages: list[str]) -> StringCommand:
        return StringCommand(
            "dpkg-query -W -f '${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\\n'",
            *[QuoteString(name) for name in packages],
            "2>/dev/null || true",
        )

    @override
    def process(self, output: list[str]) -> dict[str, Installed]:
        packages = {}
        for line in output:
            name, *rest = line.split(" ")
            # A package that is known, but was never installed, has no version.
            if rest[-1] == "installed":
                version, want, _ = rest
                packages[name] = Installed(version, want == "hold")
        return packages


def primary_fingerprints(colons: list[str]) -> tuple[str, ...]:
    """The primary keys' fingerprints in gpg's `--with-colons` listing; subkeys have their own."""
    found = []
    is_primary = False
    for line in colons:
        fields = line.split(":")
        if fields[0] in ("pub", "sub", "sec", "ssb"):
            is_primary = fields[0] == "pub"
        elif fields[0] == "fpr" and is_primary:
            found.append(fields[9])
            is_primary = False
    return tuple(found)
