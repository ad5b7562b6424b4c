"""Makes a model of a GGUF file: of one on the host's disk, or of one at an address."""

from __future__ import annotations

from pathlib import Path

from common import BLOCK, sha256
from job_state import Phase
from model_check import Model
from model_work import HASH_RATE, Work
from ollama_protocol import WEIGHTS_TYPE
from transfer import Progress, RefusedError, fetch

# What an import takes at its peak, in sizes of the file: what was fetched, Ollama's copy of it, and
# what Ollama makes of that (it runs `llama-quantize COPY` over each).
_COPIES_OF_PATH, _COPIES_OF_ADDRESS = 2, 3


class Import:
    """Imports, as a part of `work`."""

    def __init__(self, work: Work) -> None:
        self.work, self.store = work, work.store

    def make(self, model: Model) -> None:
        """Make a model of a GGUF file: of what an earlier import left, else of the file itself."""
        digest = self._imported(model) or self._uploaded(model)
        self.work.check_space(self.store.blob(digest).stat().st_size)
        self.work.make(model, {"files": {"model.gguf": digest}})
        if manifest := self.store.manifest(model["name"]):
            weights = sorted(manifest.layers_of(WEIGHTS_TYPE))
            self.store.remember(model["name"], imported=[model["sha256"], *weights])

    def _imported(self, model: Model) -> str | None:
        """What Ollama made of this very file before: another definition needs no other weights."""
        for name in self.store.memory["models"]:
            source, *weights = self.store.recall(name, "imported") or [""]
            if source != model["sha256"] or len(weights) != 1:
                continue
            if not self.store.fault(weights[0], None, self.work.meter(model, Phase.CHECKING)):
                return str(weights[0])
        return None

    def _uploaded(self, model: Model) -> str:
        """The digest of the file, which is handed over to Ollama unless it has it."""
        digest = f"sha256:{model['sha256']}"
        if self.store.fault(digest, None, self.work.meter(model, Phase.CHECKING)):
            self.store.remove_blob(digest)
            is_local = model["gguf"].startswith("/")
            path = Path(model["gguf"]) if is_local else self._fetch(model)
            self._upload(model, path, digest, is_ours=not is_local)
            if not is_local:
                path.unlink()
        return digest

    def _fetch(self, model: Model) -> Path:
        """Fetch a GGUF file into the models directory, from where it broke off."""
        part = self.store.scratch(f"{model['sha256']}.part")

        def begins(at: Progress) -> None:
            self.work.check_space(_COPIES_OF_ADDRESS * at.total - at.completed)
            self.work.state.update(
                model["name"], phase=Phase.FETCHING, completed=at.completed, total=at.total
            )

        def follow(at: Progress) -> None:
            if not at.total:
                self.work.check_space((_COPIES_OF_ADDRESS - 1) * at.completed + BLOCK)
            self.work.follow(model, at)

        fetch(model["gguf"], part, self.work.limits, begins=begins, follow=follow)
        return part

    def _upload(self, model: Model, path: Path, digest: str, *, is_ours: bool) -> None:
        try:
            if not path.is_file():
                path.stat()  # says why, where it is not there
                raise RefusedError(f"{path}: is no file")
            total = path.stat().st_size
            self.work.check_space(_COPIES_OF_PATH * total)
            actual = sha256(path, self.work.meter(model, Phase.VERIFYING))
        except OSError as error:
            raise RefusedError(
                f"{path}: {error.strerror} (it is read as the user ollama)"
            ) from None
        if f"sha256:{actual}" != digest:
            if is_ours:
                path.unlink()
            raise RefusedError(
                f"{model['gguf']}: the SHA-256 is {actual}, declared is {model['sha256']}: nothing "
                "was imported"
            )
        self.work.state.update(model["name"], phase=Phase.IMPORTING, completed=0, total=total)
        with path.open("rb") as file:
            timeout = self.work.limits.no_progress + total / HASH_RATE
            self.work.api.send_file(f"/api/blobs/{digest}", file, total, timeout)
