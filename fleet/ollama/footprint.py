"""What Ollama puts on a host."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.kit.footprint import Part, Trace, files, folders, units
from fleet.kit.releases import FETCHER
from fleet.ollama.paths import OLLAMA_CURRENT, OLLAMA_HOME, OLLAMA_ROOT, OLLAMA_UNIT, OLLAMA_USER
from fleet.ollama.settings import Ollama


def footprint(me: FleetHost) -> Iterator[Trace]:
    """Releases and units; what is kept is the models', and the user's whose they are."""
    yield Trace(
        f"`{OLLAMA_ROOT}/<version>`, `{OLLAMA_CURRENT}`",
        f"releases side by side, and the one that runs; `{OLLAMA_UNIT}` or "
        "`ollama@<instance>.service`",
        (
            *units(OLLAMA_UNIT, "ollama@*.service"),
            *files(OLLAMA_CURRENT, sign=".sha256"),
            *files(FETCHER),
            Part("file", f"{OLLAMA_ROOT}/[0-9]*.*", FETCHER),
            Part("tree", f"{OLLAMA_ROOT}/[0-9]*.new", FETCHER),
            Part("tree", f"{OLLAMA_ROOT}/*", ".sha256"),
            *folders(OLLAMA_ROOT),
        ),
    )
    models = me[Ollama].models_dir
    # The loader makes it before any model.
    sign = f"{models}/.llm-fleet*"
    yield Trace(
        f"`{OLLAMA_HOME}` (models: or `ollama_models_dir`)",
        f"keys and models of the system user `{OLLAMA_USER}`",
        (
            Part("user", OLLAMA_USER, OLLAMA_HOME),
            *(
                Part("tree", f"{OLLAMA_HOME}/{name}", sign)
                for name in (".ollama", ".nv", ".cache", ".config")
            ),
            Part("tree", f"{models}/blobs", sign),
            Part("tree", f"{models}/manifests", sign),
            *folders(models, OLLAMA_HOME),
            Part("tree", f"{models}/.llm-fleet"),
            Part("file", f"{models}/.llm-fleet.lock"),
        ),
        "models",
        "tens of gigabytes that a next deploy need not fetch again",
    )
