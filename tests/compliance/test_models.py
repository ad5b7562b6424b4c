"""The declared models are there."""

from __future__ import annotations

import json

from fleet import paths
from fleet.facts.ollama import OllamaModels
from tasks.models import full_name
from tests.compliance.connection import Target


def test_present(gpu_host: Target) -> None:
    """Every declared model is present."""
    url = f"http://{gpu_host.declared.ollama_endpoint}"
    present = gpu_host.fact(OllamaModels, url=url)
    missing = [name for name in gpu_host.declared.ollama.models if full_name(name) not in present]
    assert missing == [], (
        f"present: {sorted(present)}; run the deploy to pull{gpu_host.journal(paths.LOADER_UNIT)}"
    )


def test_complete(gpu_host: Target) -> None:
    """Every declared model has all its files, at their full size."""
    directory = gpu_host.declared.ollama.models_dir
    problems = []
    for name in gpu_host.declared.ollama.models:
        path = f"{directory}/manifests/{_manifest_path(full_name(name))}"
        text = gpu_host.testinfra.run("cat %s", path).stdout
        if not text:
            problems.append(f"{name}: no manifest {path}")
            continue
        manifest = json.loads(text)
        for layer in [manifest["config"], *manifest["layers"]]:
            blob = f"{directory}/blobs/{layer['digest'].replace(':', '-')}"
            size = gpu_host.testinfra.run("stat -c %%s %s", blob).stdout.strip()
            if size != str(layer["size"]):
                problems.append(f"{name}: {blob} has {size or 'no'} bytes of {layer['size']}")
    assert problems == []


def test_loader(gpu_host: Target) -> None:
    """The loader runs at boot, and its last run did not fail."""
    service = gpu_host.testinfra.service(paths.LOADER_UNIT)
    assert service.is_enabled
    state = gpu_host.run("systemctl show --value -p ActiveState %s", paths.LOADER_UNIT)
    assert state != "failed", gpu_host.journal(paths.LOADER_UNIT)


def _manifest_path(name: str) -> str:
    """Where Ollama keeps the manifest of a full model name, under `manifests/`."""
    model, tag = name.rsplit(":", 1)
    parts = model.split("/")
    defaults = ["registry.ollama.ai", "library"]
    return "/".join([*defaults[: 3 - len(parts)], *parts, tag])
