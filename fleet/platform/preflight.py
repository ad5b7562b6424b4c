"""Hosts that this project does not know how to converge."""

from __future__ import annotations

SUPPORTED: dict[str, tuple[str, ...]] = {
    "debian": ("12", "13"),
    "ubuntu": ("22.04", "24.04", "26.04"),
}
