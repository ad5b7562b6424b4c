"""Has one declared model on the disk: pulled, created from another, or imported from a file."""

from __future__ import annotations

import contextlib
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import ProgramError, log, sha256
from model_check import Comparison, Model
from model_state import Phase, State
from ollama_api import LOAD_TIMEOUT, Api
from ollama_protocol import split_name
from registry import Manifest, ask_manifest, manifest_url
from transfer import (
    PATIENT,
    Limits,
    Progress,
    RefusedError,
    StalledError,
    Watch,
    check_space,
    fetch,
)

HASH_RATE = 20_000_000  # bytes a second of the slowest disk: how long a check may be silent
_MAKE_ROOM = "make room there, or move ollama_models_dir"


class Provider:
    """Works through `api`, and tells `state` how far it is.

    `completed` is how many bytes of the present model came, at best.
    """

    def __init__(self, api: Api, compared: Comparison, limits: Limits, state: State) -> None:
        self.api, self.compared, self.limits, self.state = api, compared, limits, state
        self.store = compared.store
        self.completed = 0

    def provide(self, model: Model) -> None:
        """Have `model` on the disk as declared, and loaded once.

        Raises:
            RefusedError: trying again at once would not help.
            ProgramError, OSError, ValueError, KeyError: it may go better at the next attempt.
        """
        name = model["name"]
        if lack := self.compared.lacks(model, self._meter(model, Phase.CHECKING)):
            log(f"{name} {lack}")
            self._discard_faulty_blobs(model)
            replaced = self.store.manifest(name)
            make = self._import if model["gguf"] else self._create if model["base"] else self.pull
            make(model)
            if lack := self.compared.lacks(model, self._meter(model, Phase.VERIFYING)):
                raise ProgramError(f"{lack} after all")
            self.store.drop_unused(replaced)
        if model["source"] != name and self.store.manifest(model["source"]):
            self.api.call("/api/delete", {"model": model["source"]}, "DELETE")
        if not model["load"] and self.compared.untried(model):
            self.state.update(name, phase=Phase.LOADING)
            self.api.load(name)
            self.compared.note_tried(model)

    def _meter(self, model: Model, phase: Phase) -> Callable[[int], None]:
        """A report for hashing: the phase is shown only when something is hashed."""
        done, total = 0, self.store.size(model["name"])
        watch = Watch(PATIENT, time.monotonic())

        def report(length: int) -> None:
            nonlocal done
            done += length
            rate = watch.saw(done, total, time.monotonic())
            self._show(model, Progress(done, total, rate), phase=phase)

        return report

    def _show(self, model: Model, at: Progress, **values: Any) -> None:
        self.state.update(
            model["name"],
            now=False, completed=at.completed, total=at.total, rate=int(at.rate), **values,
        )  # fmt: skip

    def _follow(self, model: Model, at: Progress) -> None:
        """Show a transfer, whose new bytes make an attempt worth while."""
        self.completed = max(self.completed, at.completed)
        self._show(model, at)

    def _discard_faulty_blobs(self, model: Model) -> None:
        """Delete what is not what its name says: Ollama takes a blob that is there for a good one.

        Whatever was loaded from it goes too, or it would go on answering from memory.
        """
        manifest = self.store.manifest(model["name"])
        for digest, size in manifest.blobs.items() if manifest else ():
            fault = self.store.fault(digest, size, lambda _: None)
            if not fault or not self.store.blob(digest).exists():
                continue
            self._unload_all_with(digest, fault)
            log(f"{fault}: deleted, to be fetched again")
            self.store.remove_blob(digest)

    def _unload_all_with(self, digest: str, why: str) -> None:
        for server in self.compared.servers:
            try:
                loaded = server.api.call("/api/ps")["models"]
            except ConnectionRefusedError:  # a server that is down has nothing in memory
                continue
            for entry in loaded:
                other = self.store.manifest(entry["name"])
                if other and digest in other.blobs:
                    log(f"{entry['name']}: unloaded, {why}")
                    server.api.call("/api/generate", {"model": entry["name"], "keep_alive": 0})

    # Pull.

    def pull(self, model: Model) -> None:
        """Have Ollama pull the model, under its declared name."""
        name, source = model["name"], model["source"]
        offered = self.ask_registry(model)
        if offered:
            _refuse_moved_tag(model, offered)
            self._check_space(self.store.missing(offered))
        before = self.store.manifest(source)
        self._follow_pull(model, offered.size if offered else 0)
        pulled = self.store.manifest(source)
        if model["digest"] and pulled and pulled.digest != model["digest"]:
            self.store.put_manifest(source, before)
            _refuse_moved_tag(model, pulled)
        if source == name:
            return
        for digest, size in pulled.blobs.items() if pulled else ():
            if fault := self.store.fault(digest, size, self._meter(model, Phase.VERIFYING)):
                self.store.remove_blob(digest)
                raise ProgramError(f"{fault} after its pull: deleted, to be fetched again")
        self.api.call("/api/copy", {"source": source, "destination": name})

    def _check_space(self, need: int) -> None:
        check_space(self.store.root, need, self.limits.disk_reserve, _MAKE_ROOM)

    def ask_registry(self, model: Model) -> Manifest | None:
        """The manifest that a pull would bring; None where only Ollama's own key can see it."""
        url = manifest_url(*split_name(model["source"]), insecure=model["insecure"])
        try:
            return ask_manifest(url, self.limits.no_progress)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    raise RefusedError(
                        f"the registry has no {model['source']} ({url}: 404)"
                    ) from None
                if error.code not in (401, 403):
                    raise ProgramError(f"{url}: {error.code} {error.reason}") from None
            if model["digest"]:
                raise RefusedError(
                    f"{url}: {error.code}: the registry shows it to Ollama's own key only, so its "
                    "digest cannot be checked before it replaces what is there; leave digest out"
                ) from None
            return None
        except (urllib.error.URLError, TimeoutError) as error:
            raise ProgramError(f"{url}: {getattr(error, 'reason', error)}") from None

    def _follow_pull(self, model: Model, total: int) -> None:
        self.state.update(model["name"], phase=Phase.PULLING, completed=0, total=total, rate=0)
        watch = Watch(self.limits, time.monotonic())
        layers: dict[str, tuple[int, int]] = {}
        status: dict[str, Any] = {}
        request = {"model": model["source"], "insecure": model["insecure"]}
        checks = (total or 1e11) / HASH_RATE
        try:
            # Errors come as a line inside a 200 answer: only the last line tells.
            lines = self.api.stream("/api/pull", request, self.limits.no_progress, checks)
            with contextlib.closing(lines):
                for status in lines:
                    if "digest" in status and "total" in status:
                        layers[status["digest"]] = (status.get("completed", 0), status["total"])
                        completed = sum(done for done, _ in layers.values())
                        whole = max(total, sum(size for _, size in layers.values()))
                        rate = watch.saw(completed, whole, time.monotonic())
                        self._follow(model, Progress(completed, whole, rate))
        except TimeoutError:
            raise StalledError(
                f"not a word from Ollama for {self.limits.no_progress:.0f} s"
            ) from None
        if status.get("status") != "success":
            raise ProgramError(status.get("error") or f"the pull ended after {status!r}")

    # Create and import.

    def _create(self, model: Model) -> None:
        if self.store.manifest(model["base"]) is None:
            raise ProgramError(f"its base {model['base']} is not there")
        self._make(model, {"from": model["base"]})

    def _make(self, model: Model, origin: dict[str, Any]) -> None:
        name = model["name"]
        self.state.update(name, phase=Phase.CREATING)
        definition = {key: value for key, value in model["definition"].items() if value}
        request = {"model": name, **origin, **definition}
        status: dict[str, Any] = {}
        for line in self.api.stream("/api/create", request, LOAD_TIMEOUT):
            status = line
        if status.get("status") != "success":
            raise ProgramError(status.get("error") or f"the creation ended after {status!r}")
        if manifest := self.store.manifest(name):
            definition_hash = self.compared.definition(model)
            self.store.remember(name, definition=definition_hash, created=manifest.digest)

    def _import(self, model: Model) -> None:
        """Hand a GGUF file over to Ollama under its SHA-256, and make a model of it."""
        digest = f"sha256:{model['sha256']}"
        if self.store.fault(digest, None, self._meter(model, Phase.CHECKING)):
            self.store.remove_blob(digest)
            is_local = model["gguf"].startswith("/")
            path = Path(model["gguf"]) if is_local else self._fetch(model)
            self._upload(model, path, digest, is_ours=not is_local)
            if not is_local:
                path.unlink()
        self._make(model, {"files": {"model.gguf": digest}})

    def _fetch(self, model: Model) -> Path:
        """Fetch a GGUF file into the models directory, from where it broke off."""
        part = self.store.scratch(f"{model['sha256']}.part")

        def begins(at: Progress) -> None:
            # Once here, and once as Ollama's blob.
            self._check_space(2 * (at.total - at.completed) + at.completed)
            self.state.update(
                model["name"], phase=Phase.FETCHING, completed=at.completed, total=at.total
            )

        fetch(
            model["gguf"], part, self.limits,
            begins=begins, follow=lambda at: self._follow(model, at),
        )  # fmt: skip
        return part

    def _upload(self, model: Model, path: Path, digest: str, *, is_ours: bool) -> None:
        try:
            total = path.stat().st_size
            actual = sha256(path, self._meter(model, Phase.VERIFYING))
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
        self._check_space(total)
        self.state.update(model["name"], phase=Phase.IMPORTING, completed=0, total=total)
        with path.open("rb") as file:
            timeout = self.limits.no_progress + total / HASH_RATE
            self.api.send_file(f"/api/blobs/{digest}", file, total, timeout)


def _refuse_moved_tag(model: Model, offered: Manifest) -> None:
    if model["digest"] and offered.digest != model["digest"]:
        raise RefusedError(
            f"the tag has moved: declared is the digest {model['digest']}, the registry has "
            f"{offered.digest}; nothing was replaced. Declare the new digest to accept it"
        )
