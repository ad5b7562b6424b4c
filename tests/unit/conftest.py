import sys
from pathlib import Path

# As on a host, where they lie flat and find each other by their plain names.
sys.path += [str(path) for path in sorted(Path(__file__).parents[2].glob("fleet/*/on_host"))]

from tests.fleets import own_secrets
from tests.unit.dify_host import host
from tests.unit.loader_rig import ollama, other, run

__all__ = ["host", "ollama", "other", "own_secrets", "run"]
