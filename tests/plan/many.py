"""A plan for COUNT hosts that nobody has, for `make bench-fleet`."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import fleet.declare.load
from fleet.firewall import operations
from fleet.kit.quick import be_quick
from tests.fleets import EDGE
from tests.plan.simulation import bare, plan


def main(count: int) -> None:
    """Check and plan `count` bare hosts with Ollama, and a gateway before them."""
    logging.disable()
    be_quick()
    # No host is there to log in to anew.
    operations.run_anew = lambda *_: None
    hosts = {
        f"gpu{number}": (
            "gpu",
            {
                "private_address": f"10.{number // 65536 + 1}.{number // 256 % 256}.{number % 256}",
                "ollama_listen": "private",
                "gpu_count": 0,
            },
        )
        for number in range(1, count + 1)
    }
    with tempfile.TemporaryDirectory() as folder:
        fleet.declare.load.project_of = lambda _: Path(folder)
        plan({**hosts, "edge": EDGE}, {name: bare() for name in (*hosts, "edge")})


if __name__ == "__main__":
    main(int(sys.argv[1]))
