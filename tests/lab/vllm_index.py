"""An index of packages on a lab host whose only one is called vllm, and is the lab's stand-in."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from tests.lab.conftest import ROOT, LabUnderTest

VERSION = "0.32.0"
WHEEL = f"vllm-{VERSION}-py3-none-any.whl"
WEIGHTS = "/srv/weights/tiny"
PORT = 9000
CONFIG: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 131_072,
}


def wheel() -> bytes:
    """The stand-in as a package that is asked by vLLM's own module."""
    folder = "vllm/entrypoints/openai"
    files = {
        f"{folder}/{path.name}": path.read_bytes() for path in (ROOT / "lab/vllm").glob("*.py")
    }
    files |= {f"{name}/__init__.py": b"" for name in ("vllm", "vllm/entrypoints")}
    info = f"vllm-{VERSION}.dist-info"
    files |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # A date that stays: the lock has the hash of all of it.
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content)
    return packed.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def write_lock(path: Path) -> None:
    """The requirements of the stand-in, with its hash."""
    path.write_text(
        f"vllm=={VERSION} \\\n    --hash=sha256:{hashlib.sha256(wheel()).hexdigest()}\n"
    )


def prepare(lab: LabUnderTest, host: str) -> None:
    """Have the index, and weights that only have a size, on a host of the lab."""
    lab.ssh(
        host,
        "command -v python3 >/dev/null || { apt-get -qq update; apt-get -qqy install python3; };"
        f" mkdir -p /srv/index/simple/vllm /srv/index/simple/pip {WEIGHTS}",
    )
    _put(lab, host, f"/srv/index/simple/vllm/{WHEEL}", wheel())
    _put(lab, host, "/srv/index/simple/vllm/index.html", f'<a href="{WHEEL}">v</a>'.encode())
    _put(lab, host, "/srv/index/simple/pip/index.html", b"")
    _put(lab, host, f"{WEIGHTS}/config.json", json.dumps(CONFIG).encode())
    _put(lab, host, f"{WEIGHTS}/model.safetensors", b"no weights at all")
    lab.ssh(
        host,
        "systemd-run --quiet --unit index python3 -m http.server"
        f" {PORT} --bind 127.0.0.1 --directory /srv/index",
    )


def _put(lab: LabUnderTest, host: str, path: str, content: bytes) -> None:
    text = base64.b64encode(content).decode()
    lab.ssh(host, f"echo {text} | base64 -d > {path} && chmod 644 {path}")
