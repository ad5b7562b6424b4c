"""What a kernel's name says of its packages."""

from __future__ import annotations

import re


def kernel_flavor(kernel: str) -> str:
    """`generic` of `6.8.0-45-generic`, `cloud-amd64` of `6.12.94+deb13-cloud-amd64`."""
    return re.sub(r"^[0-9.]+(\+[a-z0-9.]+|-[0-9.]+)*-?", "", kernel)
