"""What a gateway's host says of itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.gateway.facts import DrainedHosts, OpensslVersion, ServedServers
from fleet.gateway.files import drained_file
from fleet.gateway.paths import GATEWAY_DIR


@pytest.mark.parametrize(
    ("lines", "version"),
    [
        # Debian 13: a package of before the transition to 64-bit times is known, and not there.
        (["not-installed ", "installed 3.5.9"], (3, 5)),
        (["installed 3.0.2"], (3, 0)),
        (["config-files 1.1.1n", "installed 3.0.19"], (3, 0)),
        (["installed 3.0.19", "installed 3.5.9"], (3, 5)),
        (["not-installed "], (0, 0)),
    ],
)
def test_openssl_is_asked_of_dpkg(lines: list[str], version: tuple[int, int]) -> None:
    """A bare host has neither python3 nor, for certain, openssl's own program."""
    assert OpensslVersion().process(lines) == version


_BEFORE = r"""
        location ~ ^/hosts/gpu1\.example/(?<admin_path>api/(?:pull|create|show|delete|ps|tags|version))$ {
        location ~ ^/hosts/gpu2\.example/a/(?<admin_path>api/(?:pull|create|show|delete))$ {
        location ~ ^/(?:api/(?:tags|version)|v1/models(?:/.+)?)$ {
"""  # noqa: E501 - as nginx has it


@pytest.mark.parametrize(
    ("files", "served"),
    [
        ({}, None),
        ({"served": "# Managed\n"}, ()),
        ({"served": "# Managed\ngpu2\ngpu1/a\n", "nginx.conf": _BEFORE}, ("gpu1/a", "gpu2")),
        ({"nginx.conf": _BEFORE}, ("gpu1.example", "gpu2.example/a")),
        ({"nginx.conf": "events {}"}, ()),
    ],
    ids=["no gateway", "nobody is ready", "written down", "a gateway of before", "of nobody"],
)
def test_who_is_served(
    files: dict[str, str], served: tuple[str, ...] | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    fact = ServedServers()
    command = fact.command().get_raw_value().replace(GATEWAY_DIR, str(tmp_path))
    done = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True)
    # pyinfra asks for the default where nothing is printed.
    lines = done.stdout.splitlines()
    assert (fact.process(lines) if lines else fact.default()) == served


def test_who_drained_a_host_is_written_down_and_read() -> None:
    drained = {"gpu1": "", "gpu2": "by alice@desk since 2026-11-30 16:00 UTC"}
    text = drained_file(drained).content
    assert DrainedHosts().process(text.splitlines()) == drained


def test_what_stands_there_is_no_more_than_a_line_of_text() -> None:
    """Whoever has the gateway may write there."""
    [note] = DrainedHosts().process(["gpu1 \x1b[2Jby " + "x" * 5000]).values()
    assert note.isprintable()
    assert len(note) <= 200
