"""The model registry's content: manifests and blobs as files, laid out like their URLs.

It stands for: registry.ollama.ai. The names are gpt-oss's, the weights are Gemma 3 270M (a base
model), so the template turns a chat into a text that such a model continues.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.ollama.image."

# One exchange as an example makes the base model answer and stop. Ollama decides from the names in
# a template what a model can do: .Tools and .Thinking make it accept both, as gpt-oss does.
TEMPLATE = (
    "A helpful assistant answers questions."
    "{{ if .Tools }} It has tools.{{ end }}"
    "{{ if .System }} {{ .System }}{{ end }}\n\n"
    "User: Hello!\nAssistant: Hello! How can I help you?\n"
    "{{- range .Messages }}"
    '{{- if eq .Role "user" }}\nUser: {{ .Content }}'
    '{{- else if eq .Role "assistant" }}\nAssistant: '
    "{{ if .Thinking }}<think>{{ .Thinking }}</think> {{ end }}{{ .Content }}"
    "{{- end }}{{- end }}\nAssistant:"
)
PARAMETERS: dict[str, object] = {"stop": ["\n", "User:"], "temperature": 0}


@dataclass(frozen=True)
class Model:
    """One name in the registry; its small layers make its digest its own."""

    name: str
    tags: tuple[str, ...]
    layers: dict[str, str] = field(default_factory=dict)


MODELS = (
    Model(
        "gpt-oss",
        ("20b", "latest"),
        {
            "template": TEMPLATE,
            "license": "Gemma terms of use. The lab's stand-in for gpt-oss:20b.\n",
            "params": json.dumps(PARAMETERS),
        },
    ),
    Model(
        "gpt-oss",
        ("120b",),
        {
            "template": TEMPLATE,
            "license": "Gemma terms of use. The lab's stand-in for gpt-oss:120b.\n",
            "params": json.dumps(PARAMETERS),
        },
    ),
    # No layer but the weights: completes text, has no template, no tools, no thinking.
    Model("tiny", ("latest",)),
)


def build(root: Path, gguf: Path, gguf_sha256: str) -> None:
    """Write every model below ``v2/library``; the weights are hard links to *gguf*."""
    weights = descriptor(LAYER_TYPE + "model", f"sha256:{gguf_sha256}", gguf.stat().st_size)
    for model in MODELS:
        folder = root / "v2" / "library" / model.name
        (folder / "manifests").mkdir(parents=True, exist_ok=True)
        (folder / "blobs").mkdir(exist_ok=True)
        link(gguf, folder / "blobs" / str(weights["digest"]))
        layers = [weights]
        for kind, text in model.layers.items():
            layers.append(blob(folder, LAYER_TYPE + kind, text.encode()))
        config = blob(folder, CONFIG_TYPE, as_json(configuration(layers)))
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config}
        for tag in model.tags:
            (folder / "manifests" / tag).write_bytes(as_json({**manifest, "layers": layers}))


def configuration(layers: list[dict[str, object]]) -> dict[str, object]:
    """Return the config blob; it tells the truth about the weights."""
    return {
        "model_format": "gguf",
        "model_family": "gemma3",
        "model_families": ["gemma3"],
        "model_type": "268.10M",
        "file_type": "Q4_K_M",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }


def as_json(value: object) -> bytes:
    """Return compact JSON, the same bytes for the same value."""
    return json.dumps(value, separators=(",", ":")).encode()


def descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    """Return what a manifest says of one blob."""
    return {"mediaType": media_type, "digest": digest, "size": size}


def blob(folder: Path, media_type: str, content: bytes) -> dict[str, object]:
    """Write a blob and return its descriptor."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    (folder / "blobs" / digest).write_bytes(content)
    return descriptor(media_type, digest, len(content))


def link(source: Path, target: Path) -> None:
    """Hard-link a file, once."""
    if not target.exists():
        os.link(source, target)
