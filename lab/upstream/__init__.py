"""The lab's upstream: what its hosts install from and no package mirror has.

It stands for Ollama's releases (github.com/ollama/ollama) and for a model registry, as one web root
of plain files with the same paths, formats and checksums, served by ``python -m lab.upstream``.
Production and lab differ in addresses only.
"""

from lab.upstream.build import Upstream, prepare

__all__ = ["Upstream", "prepare"]
