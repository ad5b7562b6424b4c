"""LiteLLM's proxy on this machine, installed from a lock of hashes (`requirements.lock`).

The lock is made as `requirements.in` says, by `uv pip compile --universal --generate-hashes`.
"""

import hashlib
import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.bench_gateway import load
from lab.bench_gateway.proxies import MODEL
from lab.state import CACHE, LabError

PORT = 19005
FOLDER = f"/run/bench-{PORT}"
_LOCK = Path(__file__).with_name("requirements.lock")
_STARTS = 300.0  # seconds


def installed() -> Path:
    """Its environment, made once for this lock."""
    place = CACHE / f"litellm-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]}"
    done = place / "installed"
    if not done.exists():
        venv.create(place, clear=True, with_pip=True)
        pip: list[str | Path] = [
            place / "bin/pip",
            "install",
            "--quiet",
            "--require-hashes",
            "-r",
            _LOCK,
        ]
        subprocess.run(pip, check=True)
        done.touch()
    return place


@contextmanager
def running(backend: str) -> Iterator[str]:
    """It serves the model from `backend`, a worker a core; its URL. wrk's script is in FOLDER."""
    environment, folder = installed(), Path(FOLDER)
    folder.mkdir(mode=0o700, exist_ok=True)
    key = f"sk-{secrets.token_hex(32)}"
    model = {"model": f"openai/{MODEL}", "api_base": f"{backend}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": model}],
        "general_settings": {"master_key": key},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "whole.lua").write_text(load.script(key))
    command: list[str | Path] = [
        environment / "bin/litellm", "--config", folder / "config.yaml", "--host", "127.0.0.1",
        "--port", str(PORT), "--num_workers", str(os.cpu_count()), "--telemetry", "False",
        # By default a worker that needs more than 5 s to begin is started again, for ever.
        "--timeout_worker_healthcheck", f"{_STARTS:.0f}",
    ]  # fmt: skip
    settings = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=settings, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
        try:
            _wait(process, folder)
            yield f"http://127.0.0.1:{PORT}"
        finally:
            process.terminate()
            process.wait(30)
            for name in ("config.yaml", "whole.lua", "log"):
                (folder / name).unlink()


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + _STARTS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health/readiness", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    told = (folder / "log").read_text(errors="replace")[-3000:]
    raise LabError(f"LiteLLM's proxy did not start within {_STARTS:.0f} s:\n{told}")
