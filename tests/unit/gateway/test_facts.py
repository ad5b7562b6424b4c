"""What a gateway's host says of itself."""

from __future__ import annotations

import pytest

from fleet.gateway.facts import OpensslVersion


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
