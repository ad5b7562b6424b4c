"""How Ollama names models, keeps them on a disk, and is asked to load one.

Product code reads it too: see `common.py`.
"""

from __future__ import annotations

from typing import Any

WEIGHTS_TYPE = "application/vnd.ollama.image.model"
_HOST, _NAMESPACE = "registry.ollama.ai", "library"  # what a name leaves out


def split_name(name: str) -> tuple[str, str, str]:
    """Registry, repository and tag of a model name that has a tag."""
    model, tag = name.rsplit(":", 1)
    parts = model.split("/")
    host, *repository = [*[_HOST, _NAMESPACE][: 3 - len(parts)], *parts]
    return host, "/".join(repository), tag


def manifest_path(models_dir: str, name: str) -> str:
    """Where the manifest of a model lies, by its name with a tag."""
    return "/".join([models_dir, "manifests", *split_name(name)])


def blob_name(digest: str) -> str:
    """File name of a blob, in `blobs/` of the models directory."""
    return digest.replace(":", "-")


def load_request(name: str, shown: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Path and body of the smallest request that loads a model, by what `/api/show` says of it.

    One that makes embeddings refuses to generate (400), even nothing.
    """
    if "embedding" in shown.get("capabilities", []):
        return "/api/embed", {"model": name, "input": "x"}
    return "/api/generate", {"model": name}
