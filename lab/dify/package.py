"""Plugin packages: a zip of declarations, signed in its comment by the lab's marketplace."""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import yaml

# The real key signs with RSA; what matters is that a repacked package has no good signature.
_SIGNER = b"the lab's marketplace"
_EPOCH = (2026, 8, 21, 0, 0, 0)
_PROVIDER = "provider/ollama.yaml"


class BadPackageError(ValueError):
    """A file that is no plugin package."""


@dataclass(frozen=True)
class Package:
    """A package, read."""

    content: bytes
    manifest: dict[str, Any]
    provider: dict[str, Any]
    checksum: str
    signed: bool

    @property
    def plugin_id(self) -> str:
        """``author/name``."""
        return f"{self.manifest['author']}/{self.manifest['name']}"

    @property
    def identifier(self) -> str:
        """``author/name:version@checksum``. The checksum is not the file's own."""
        return f"{self.plugin_id}:{self.manifest['version']}@{self.checksum}"


def read(content: bytes) -> Package:
    """Read a package.

    Raises:
        BadPackageError: it is none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {name: archive.read(name) for name in sorted(archive.namelist())}
            comment = archive.comment
        manifest = yaml.safe_load(files["manifest.yaml"])
        provider = yaml.safe_load(files[_PROVIDER])
    except (zipfile.BadZipFile, KeyError, yaml.YAMLError) as error:
        raise BadPackageError(f"invalid plugin package: {error}") from error
    checksum = _checksum(files)
    signed = comment == _signature(checksum)
    return Package(content, manifest, provider, checksum, signed)


def make(version: str, *, signed: bool = True) -> bytes:
    """The package of the Ollama plugin."""
    files = {
        "manifest.yaml": yaml.safe_dump(manifest(version)).encode(),
        _PROVIDER: yaml.safe_dump(PROVIDER).encode(),
        "pyproject.toml": f'[project]\nname = "ollama"\nversion = "{version}"\n'
        'dependencies = ["dify-plugin==0.9.0"]\n'.encode(),
        "uv.lock": b"version = 1\n",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
        if signed:
            archive.comment = _signature(_checksum(files))
    return out.getvalue()


def _checksum(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    return digest.hexdigest()


def _signature(checksum: str) -> bytes:
    signature = hashlib.sha256(_SIGNER + checksum.encode()).hexdigest()
    return json.dumps({"signature": signature, "time": 1787270400}).encode()


def manifest(version: str) -> dict[str, Any]:
    """What the plugin says of itself."""
    return {
        "version": version,
        "type": "plugin",
        "author": "langgenius",
        "name": "ollama",
        "label": {"en_US": "Ollama"},
        "description": {"en_US": "Ollama"},
        "icon": "icon.svg",
        "created_at": "2024-09-20T00:13:50.29298939-04:00",
        "plugins": {"models": [_PROVIDER]},
        "meta": {"version": "0.0.1", "arch": ["amd64", "arm64"]},
    }


def _field(variable: str, kind: str, *, required: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "variable": variable,
        "type": kind,
        "label": {"en_US": variable},
        "required": required,
        **more,
    }


PROVIDER: dict[str, Any] = {
    "provider": "ollama",
    "label": {"en_US": "Ollama"},
    "supported_model_types": ["llm", "text-embedding", "rerank"],
    "configurate_methods": ["customizable-model"],
    "model_credential_schema": {
        "model": {"label": {"en_US": "Model Name"}},
        "credential_form_schemas": [
            _field("base_url", "text-input", required=True),
            _field("api_key", "secret-input"),
            _field(
                "mode",
                "select",
                default="chat",
                options=["chat", "completion"],
                show_on="llm",
            ),
            _field("context_size", "text-input", required=True),
            _field("max_tokens", "text-input", required=True, show_on="llm"),
            _field("vision_support", "radio", default="false", options=["true", "false"]),
            _field("function_call_support", "radio", default="false", options=["true", "false"]),
        ],
    },
}
