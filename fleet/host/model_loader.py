#!/usr/bin/python3
"""Has the declared models on this host: pulled, under their declared names, and loadable.

usage: model_loader.py CONFIG

Runs on the host in the unit ollama-models.service, so that neither a lost SSH connection nor a
reboot stops a pull of 65 GB. Standard library only. CONFIG is JSON:

    {"api": "http://127.0.0.1:11434", "state": "/run/llm-fleet/models.json",
     "models": [{"name": "gpt-oss:20b", "source": "mirror:5000/library/gpt-oss:20b",
                 "insecure": true}]}

The state file holds, for each model, `phase` (waiting, pulling, loading, ready, failed),
`completed` and `total` in bytes, `rate` in bytes a second, and `error`.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ATTEMPTS = 5
FIRST_DELAY = 2.0  # seconds, doubled after each failed attempt
REQUEST_TIMEOUT = 300  # seconds without a byte; Ollama reports progress many times a second


class ModelError(Exception):
    """Ollama said no, or stopped talking."""


class Loader:
    """Brings one host's models to what is declared, and writes down how far it is."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.api = config["api"]
        self.models = config["models"]
        self.state_path = Path(config["state"])
        self.state: dict[str, dict[str, Any]] = {
            model["name"]: {"phase": "waiting", "completed": 0, "total": 0, "rate": 0, "error": ""}
            for model in self.models
        }

    def run(self) -> bool:
        """Work through all models; False if one is still missing after the last attempt."""
        self._save()
        for model in self.models:
            self._with_attempts(model)
        return all(entry["phase"] == "ready" for entry in self.state.values())

    def _with_attempts(self, model: dict[str, Any]) -> None:
        delay = FIRST_DELAY
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._provide(model)
                return
            except (ModelError, OSError) as error:
                reason = f"{model['source']}: {error} (attempt {attempt} of {ATTEMPTS})"
                sys.stderr.write(f"{reason}\n")
                self._update(model, phase="failed", error=reason)
            if attempt < ATTEMPTS:
                time.sleep(delay)
                delay *= 2

    def _provide(self, model: dict[str, Any]) -> None:
        if model["name"] not in self._present():
            self._pull(model)
            if model["source"] != model["name"]:
                self._call("/api/copy", {"source": model["source"], "destination": model["name"]})
                self._call("/api/delete", {"model": model["source"]}, method="DELETE")
            self._update(model, phase="loading")
            self._call("/api/generate", {"model": model["name"]})
        self._update(model, phase="ready", error="")

    def _present(self) -> set[str]:
        return {model["name"] for model in json.loads(self._call("/api/tags"))["models"]}

    def _pull(self, model: dict[str, Any]) -> None:
        self._update(model, phase="pulling", error="")
        layers: dict[str, tuple[int, int]] = {}
        started, already = time.monotonic(), None
        status: dict[str, Any] = {}
        request = {"model": model["source"], "insecure": model["insecure"]}
        # Errors come as a line inside a 200 answer: only the last line tells.
        for status in self._stream("/api/pull", request):
            if "digest" in status and "total" in status:
                layers[status["digest"]] = (status.get("completed", 0), status["total"])
                completed = sum(done for done, _ in layers.values())
                already = completed if already is None else already
                elapsed = max(time.monotonic() - started, 0.001)
                self._update(
                    model,
                    completed=completed,
                    total=sum(total for _, total in layers.values()),
                    rate=int((completed - already) / elapsed),
                )
        if status.get("status") != "success":
            raise ModelError(status.get("error") or f"the pull ended after {status!r}")

    def _stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._open(path, body, "POST") as answer:
            for line in answer:
                yield json.loads(line)

    def _call(self, path: str, body: dict[str, Any] | None = None, method: str = "") -> bytes:
        with self._open(path, body, method or ("POST" if body else "GET")) as answer:
            content: bytes = answer.read()
            return content

    def _open(self, path: str, body: dict[str, Any] | None, method: str) -> Any:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.api + path, data, method=method)  # noqa: S310
        # No proxy: the API is this host's own.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return opener.open(request, timeout=REQUEST_TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                raise ModelError(f"{path}: {error.code} {error.read().decode().strip()}") from None

    def _update(self, model: dict[str, Any], **values: Any) -> None:
        entry = self.state[model["name"]]
        changed = any(entry[key] != value for key, value in values.items() if key != "rate")
        entry.update(values)
        if changed:
            self._save()

    def _save(self) -> None:
        self.state_path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.state_path.with_suffix(".new")
        temporary.write_text(json.dumps({"models": self.state}))
        temporary.replace(self.state_path)


def main() -> int:
    """Run with the configuration named on the command line; the exit status."""
    config = json.loads(Path(sys.argv[1]).read_text())
    return 0 if Loader(config).run() else 1


if __name__ == "__main__":
    sys.exit(main())
