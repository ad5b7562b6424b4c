"""Newer releases of what `fleet/pins.py` pins, with the checksums that they publish: `make pins`.

Keys are not looked for: a new one is a person's decision. Dify publishes no checksum of its source;
the operator declares it.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import requests

from fleet.kit.errors import FleetError

PINS = Path(__file__).parent / "pins.py"
_TIMEOUT = 60  # seconds
_RELEASE = re.compile(r"v?([0-9]+\.[0-9]+\.[0-9]+)")
_ARCHITECTURES = ("amd64", "arm64")


@dataclass(frozen=True)
class Sources:
    """Where releases are published."""

    github_api: str = "https://api.github.com"
    github: str = "https://github.com"
    docker: str = "https://download.docker.com/linux"
    toolkit: str = "https://nvidia.github.io/libnvidia-container"
    # What of Docker's repository hosts use: distribution and its suites.
    docker_suites: tuple[tuple[str, str], ...] = (
        ("debian", "bookworm"),
        ("debian", "trixie"),
        ("ubuntu", "jammy"),
        ("ubuntu", "noble"),
        ("ubuntu", "resolute"),
    )


def newest(sources: Sources) -> dict[str, str]:
    """Name in `fleet/pins.py` to the newest version that is published for every host.

    Raises:
        FleetError: a source does not answer, or not in its form.
    """
    indexes = [
        _packages(f"{sources.docker}/{name}/dists/{suite}/stable/binary-{architecture}/Packages.gz")
        for name, suite in sources.docker_suites
        for architecture in _ARCHITECTURES
    ]
    toolkit = [
        _packages(f"{sources.toolkit}/stable/deb/{architecture}/Packages")
        for architecture in _ARCHITECTURES
    ]
    return {
        "OLLAMA_VERSION": _latest(sources, "ollama/ollama"),
        "DOCKER_VERSION": _common(indexes, "docker-ce", r"5:([0-9.]+)-.*"),
        "CONTAINERD_VERSION": _common(indexes, "containerd.io", r"([0-9.]+)-.*"),
        "COMPOSE_VERSION": _common(indexes, "docker-compose-plugin", r"([0-9.]+)-.*"),
        "TOOLKIT_VERSION": _common(toolkit, "nvidia-container-toolkit", r"([0-9.]+-[0-9]+)"),
        "DIFY_VERSION": _latest(sources, "langgenius/dify"),
    }


def ollama_checksums(sources: Sources, version: str) -> dict[str, str]:
    """Architecture to the published SHA-256 of Ollama's release `version`.

    Raises:
        FleetError: the list has none for an architecture.
    """
    address = f"{sources.github}/ollama/ollama/releases/download/v{version}/sha256sum.txt"
    # Its names begin with `./`.
    found = dict(
        re.findall(r"(?m)^([0-9a-f]{64})  (?:\./)?ollama-linux-(\w+)\.tar\.zst$", _text(address))
    )
    sums = {architecture: digest for digest, architecture in found.items()}
    if missing := [item for item in _ARCHITECTURES if item not in sums]:
        raise FleetError(f"{address}: no checksum for {', '.join(missing)}")
    return {architecture: sums[architecture] for architecture in _ARCHITECTURES}


def moved(text: str, versions: Mapping[str, str], sums: Mapping[str, str]) -> str:
    """The text of `fleet/pins.py` with `versions`; `sums` are those of Ollama's.

    The checksums of earlier Ollamas stay, for whoever declares one.
    """
    for name, version in versions.items():
        text = re.sub(rf'(?m)^{name} = ".*"$', f'{name} = "{version}"', text)
    version = versions["OLLAMA_VERSION"]
    new = "".join(
        f'    ("{version}", "{architecture}"): "{digest}",\n'
        for architecture, digest in sums.items()
        if f'("{version}", "{architecture}")' not in text
    )
    return re.sub(r"(?m)^(OLLAMA_SHA256\b.* = \{\n)", rf"\g<1>{new}", text)


def _latest(sources: Sources, repository: str) -> str:
    """The newest release of a repository that is no preview."""
    address = f"{sources.github_api}/repos/{repository}/releases/latest"
    try:
        tag = str(_get(address).json()["tag_name"])
    except (ValueError, KeyError, TypeError):
        raise FleetError(f"{address}: not the description of a release") from None
    if not (found := _RELEASE.fullmatch(tag)):
        raise FleetError(f"{address}: {tag!r} is no version of three numbers")
    return found[1]


def _packages(address: str) -> list[tuple[str, str]]:
    """Package and version of each entry of a Debian index."""
    found = re.findall(r"(?m)^Package: (\S+)\n(?:(?!\n).+\n)*?Version: (\S+)$", _text(address))
    if not found:
        raise FleetError(f"{address}: no package in it")
    return found


def _common(indexes: Iterable[list[tuple[str, str]]], package: str, form: str) -> str:
    """The newest version of `package` that all `indexes` have; `form` tells it from the rest."""
    each = [set(_versions(index, package, form)) for index in indexes]
    if not (common := set.intersection(*each)):
        raise FleetError(f"{package}: no version is published for every distribution")
    return max(common, key=_numbers)


def _versions(index: Iterable[tuple[str, str]], package: str, form: str) -> Iterator[str]:
    for name, version in index:
        if name == package and (found := re.fullmatch(form, version)):
            yield found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall("[0-9]+", version))


def _text(address: str) -> str:
    content = _get(address).content
    return (gzip.decompress(content) if address.endswith(".gz") else content).decode()


def _get(address: str) -> requests.Response:
    try:
        answer = requests.get(address, timeout=_TIMEOUT)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise FleetError(f"{address}: {error}") from None
    return answer


@click.command()
def main() -> None:
    """Look for newer releases of what is pinned, and write them to fleet/pins.py."""
    before = PINS.read_text()
    try:
        versions = newest(Sources())
        text = moved(before, versions, ollama_checksums(Sources(), versions["OLLAMA_VERSION"]))
    except FleetError as error:
        raise click.ClickException(f"{error}; nothing was written") from None
    PINS.write_text(text)
    for name, version in versions.items():
        [was] = re.findall(rf'(?m)^{name} = "(.*)"$', before)
        click.echo(f"{name}: {was}" + ("" if was == version else f" -> {version}"))


if __name__ == "__main__":
    main()
