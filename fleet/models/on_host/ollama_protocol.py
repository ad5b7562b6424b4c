"""How Ollama names models, keeps them on a disk, and answers; the forms are those of `outside.py`.

Product code reads it too: see `common.py`.
"""

from __future__ import annotations

import re
from typing import Any

WEIGHTS_TYPE = "application/vnd.ollama.image.model"
_HOST, _NAMESPACE = "registry.ollama.ai", "library"  # what a name leaves out
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"(({_PART}(:[0-9]+)?/)?{_PART}/)?{_PART}:{_PART}")

# Answers, as far as they are read.
ANSWER_LIMIT = 32 << 20  # bytes
TAGS: dict[str, Any] = {"models?": [{"name": str, "size": int, "digest?": str}]}
RUNNING: dict[str, Any] = {
    "models?": [
        {
            "name": str, "size": int, "size_vram?": int,
            "context_length?": int, "expires_at?": str,
        }
    ]
}  # fmt: skip
VERSION: dict[str, Any] = {"version": str}
SHOWN: dict[str, Any] = {"model_info?": {}, "capabilities?": [str]}
# A line of a pull or a creation.
STATUS: dict[str, Any] = {
    "status?": str, "error?": str, "digest?": str, "total?": int, "completed?": int,
}  # fmt: skip
STATUS_LIMIT = 1 << 20  # bytes of a line


def split_name(name: str) -> tuple[str, str, str]:
    """Registry, repository and tag of a model name that has a tag.

    Raises:
        ValueError: it is no such name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a model with its tag")
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


def is_pinned(entry: dict[str, Any]) -> bool:
    """Whether a loaded model, an entry of `/api/ps`, is to stay for ever.

    Ollama then tells of an end three centuries from now.
    """
    year = (entry.get("expires_at") or "")[:4]
    return len(year) == 4 and year.isascii() and year.isdecimal() and int(year) >= 2100


def trained_context(shown: dict[str, Any]) -> int | None:
    """The longest context of a model, in tokens, by what `/api/show` says of it."""
    info = shown.get("model_info") or {}
    told = [value for key, value in info.items() if key.endswith(".context_length")]
    return min((value for value in told if type(value) is int and value > 0), default=None)


def load_request(name: str, shown: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Path and body of the smallest request that loads a model, by what `/api/show` says of it.

    One that makes embeddings refuses to generate (400), even nothing.
    """
    if "embedding" in (shown.get("capabilities") or []):
        return "/api/embed", {"model": name, "input": "x"}
    return "/api/generate", {"model": name}
