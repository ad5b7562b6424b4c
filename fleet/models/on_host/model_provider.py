"""Has one declared model on the disk: pulled, created from another, or imported from a file."""

from __future__ import annotations

import contextlib
import http.client
import time
import urllib.error
from collections.abc import Sequence
from typing import Any

from common import ProgramError, log
from job_state import Phase
from manifests import Manifest, ask_manifest
from model_check import Model, Server
from model_import import Import
from model_work import HASH_RATE, Work
from ollama_protocol import split_name
from outside import FormError
from registry import manifest_url
from transfer import (
    Progress,
    RefusedError,
    StalledError,
    Watch,
)


class Provider(Work):
    """Has a declared model on the disk, whatever it is made of.

    What it provides is tried at one of those that are `answering`.
    """

    answering: Sequence[Server] = ()

    def provide(self, model: Model) -> None:
        """Have `model` on the disk as declared, and loaded once.

        Raises:
            RefusedError: trying again at once would not help.
            ProgramError, OSError, ValueError: it may go better at the next attempt.
        """
        name = model["name"]
        if lack := self.compared.lacks(model, self.meter(model, Phase.CHECKING)):
            log(f"{name} {lack}")
            self._discard_faulty_blobs(model)
            replaced = self.store.manifest(name)
            self._make_or_pull(model)
            if lack := self.compared.lacks(model, self.meter(model, Phase.VERIFYING)):
                raise ProgramError(f"{lack} after all")
            self.store.drop_unused(replaced.blobs if replaced else ())
        self._have_alias(model)
        if model["gguf"]:
            # Ollama made another file of it, as a rule.
            self.store.drop_unused([f"sha256:{model['sha256']}"])
        if model["source"] != name and self.store.manifest(model["source"]):
            self.api.call("/api/delete", {"model": model["source"]}, "DELETE")
        if not model["load"] and self.compared.untried(model):
            self.state.update(name, phase=Phase.LOADING)
            self._server_for(model).api.load(name)
            self.compared.note_tried(model)

    def _server_for(self, model: Model) -> Server:
        """One that the model is for, and that answers if any of them does.

        Another might not have the memory.
        """
        serving = self.compared.serving(model)
        return next((item for item in self.answering if item in serving), serving[0])

    def _have_alias(self, model: Model) -> None:
        if self.compared.not_aliased(model):
            copy = {"source": model["name"], "destination": model["alias"]}
            self.api.call("/api/copy", copy)

    def _make_or_pull(self, model: Model) -> None:
        if model["gguf"]:
            Import(self).make(model)
        elif model["base"]:
            self._create(model)
        else:
            self.pull(model)

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
                loaded = server.api.running()
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
            self.check_space(self.store.missing(offered))
        before = self.store.manifest(source)
        self._follow_pull(model, offered.size if offered else 0)
        pulled = self.store.manifest(source)
        if model["digest"] and pulled and pulled.digest != model["digest"]:
            self.store.put_manifest(source, before)
            _refuse_moved_tag(model, pulled)
        if source == name:
            return
        for digest, size in pulled.blobs.items() if pulled else ():
            if fault := self.store.fault(digest, size, self.meter(model, Phase.VERIFYING)):
                self.store.remove_blob(digest)
                raise ProgramError(f"{fault} after its pull: deleted, to be fetched again")
        self.api.call("/api/copy", {"source": source, "destination": name})

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
        except (OSError, http.client.HTTPException, FormError) as error:
            raise ProgramError(f"{url}: {getattr(error, 'reason', None) or error!r}") from None

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
                    if status.get("digest") and status.get("total") is not None:
                        layers[status["digest"]] = (status.get("completed") or 0, status["total"])
                        completed = sum(done for done, _ in layers.values())
                        whole = max(total, sum(size for _, size in layers.values()))
                        rate = watch.saw(completed, whole, time.monotonic())
                        if not total:  # what only Ollama's own key can see is judged on its way
                            self.check_space(whole - completed)
                        self.follow(model, Progress(completed, whole, rate))
        except TimeoutError:
            raise StalledError(
                f"not a word from Ollama for {self.limits.no_progress:.0f} s"
            ) from None
        if status.get("status") != "success":
            raise ProgramError(status.get("error") or f"the pull ended after {status!r}")

    # Create.

    def _create(self, model: Model) -> None:
        if self.store.manifest(model["base"]) is None:
            raise ProgramError(f"its base {model['base']} is not there")
        self.make(model, {"from": model["base"]})


def _refuse_moved_tag(model: Model, offered: Manifest) -> None:
    if model["digest"] and offered.digest != model["digest"]:
        raise RefusedError(
            f"the tag has moved: declared is the digest {model['digest']}, the registry has "
            f"{offered.digest}; nothing was replaced. Declare the new digest to accept it"
        )
