"""What a host's models are, compared with what is declared. Nothing here changes them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common import ProgramError, size_text
from manifests import Manifest
from model_store import Store
from ollama_api import Api
from ollama_protocol import WEIGHTS_TYPE, is_pinned, trained_context

Model = dict[str, Any]  # a declaration, as `model_loader.py` tells


@dataclass(frozen=True)
class Server:
    """One Ollama, and the context that it gives to models which name none.

    `serves` are the names of the models that are for it; None where all of the host's are.
    """

    api: Api
    context: int | None
    serves: list[str] | None = None


class Comparison:
    """The declared models against the disk, and against the memory of each server."""

    def __init__(self, store: Store, servers: list[Server], models: list[Model]) -> None:
        self.store, self.servers, self.models = store, servers, models

    def lacks(self, model: Model, report: Callable[[int], None] | None = None) -> str:
        """Why the model on the disk is not the declared one, or nothing. Without `report` no blob
        is hashed."""
        manifest = self.store.manifest(model["name"])
        if manifest is None:
            return "is not there"
        if model["digest"] and manifest.digest != model["digest"]:
            return f"has the digest {manifest.digest}, declared is {model['digest']}"
        if wrong := self._definition_fault(model, manifest):
            return wrong
        for digest, size in manifest.blobs.items():
            if fault := self.store.fault(digest, size, report):
                return fault
        return ""

    def _definition_fault(self, model: Model, manifest: Manifest) -> str:
        if not (model["base"] or model["gguf"]):
            return ""
        if self.store.recall(model["name"], "definition") != self.definition(model):
            return "was not created from its present definition"
        if self.store.recall(model["name"], "created") != manifest.digest:
            return "was changed by hand since it was created"
        return ""

    def not_aliased(self, model: Model) -> str:
        """Why the model cannot be asked for by its other name, or nothing."""
        alias, manifest = model.get("alias"), self.store.manifest(model["name"])
        other = self.store.manifest(alias) if alias else None
        if not alias or (manifest and other and other.digest == manifest.digest):
            return ""
        return f"is not what {alias} is here"

    def definition(self, model: Model) -> str:
        """A hash of all that a created model is made from."""
        base = self.store.manifest(model["base"]) if model["base"] else None
        parts = [base.digest if base else model["sha256"], model["definition"]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def untried(self, model: Model) -> str:
        """Why nobody knows that the model can be loaded, or nothing."""
        manifest = self.store.manifest(model["name"])
        tried = self.store.recall(model["name"], "tried")
        return "" if manifest and tried == manifest.digest else "has not been loaded once"

    def note_tried(self, model: Model) -> None:
        """Remember that the model as it is was loaded."""
        if manifest := self.store.manifest(model["name"]):
            self.store.remember(model["name"], tried=manifest.digest)

    def serving(self, model: Model) -> list[Server]:
        """The servers that the model is for."""
        name = model["name"]
        return [item for item in self.servers if item.serves is None or name in item.serves]

    def unloaded(self, model: Model) -> str:
        """Why the model is not in memory as declared, at the first server where it is not."""
        for server in self.serving(model) if model["load"] else ():
            if lack := self.not_in(server, model):
                return f"{lack} at {server.api.host}" if len(self.servers) > 1 else lack
        return ""

    def not_in(self, server: Server, model: Model) -> str:
        """Why the model is not in the memory of one server as declared, or nothing.

        Models that share weights and options share a process, which has the name of one of them.
        """
        manifest = self.store.manifest(model["name"])
        weights = manifest.layers_of(WEIGHTS_TYPE) if manifest else set()
        for entry in server.api.running():
            other = self.store.manifest(entry["name"])
            if not (other and weights & other.layers_of(WEIGHTS_TYPE)):
                continue
            context, wanted = entry.get("context_length"), _context(server, model)
            if wanted and context and context != wanted:
                return f"is loaded with a context of {context}, declared is {wanted}"
            if is_for_ever(model) and not is_pinned(entry):
                return f"is to stay loaded, but expires at {entry.get('expires_at')}"
            return ""
        # One that may expire is warmed after each start, and not asked for later.
        return "is not loaded" if is_for_ever(model) else ""

    def uploaded(self, model: Model) -> str:
        """What is left of an import, or nothing: Ollama makes another file of each, as a rule."""
        copy = f"sha256:{model['sha256']}"
        if not model["gguf"] or not self.store.blob(copy).exists():
            return ""
        named = self.store.named_blobs()
        return (
            "" if named is None or copy in named else "has the file that it was made of beside it"
        )

    def undeclared(self, api: Api) -> dict[str, dict[str, Any]]:
        """Models that `api` lists and nothing declares: name to `size` and `in_use`."""
        declared = {model.get(key) for model in self.models for key in ("name", "source", "alias")}
        in_use = {entry["name"] for server in self.servers for entry in server.api.running()}
        return {
            entry["name"]: {"size": entry["size"], "in_use": entry["name"] in in_use}
            for entry in api.tags()
            if entry["name"] not in declared
        }

    def answer(self, *, prune: bool) -> dict[str, Any]:
        """What differs, without changing or hashing anything."""
        pending: dict[str, str] = {}
        undeclared: dict[str, dict[str, Any]] = {}
        for model in self.models:
            try:
                reason = (
                    self.lacks(model)
                    or self.not_aliased(model)
                    or self.untried(model)
                    or self.unloaded(model)
                    or self.uploaded(model)
                )
            except (ProgramError, OSError, ValueError) as error:
                reason = f"cannot be asked about: {error}"
            if reason:
                pending[model["name"]] = reason
        if left := self.store.leftovers():
            size = size_text(sum(left.values()))
            pending[str(self.store.root)] = f"has {len(left)} files ({size}) that no model uses"
        # Nothing is listed when nobody answers, or something else does.
        with contextlib.suppress(ProgramError, OSError, ValueError):
            undeclared = self.undeclared(self.servers[0].api)
        surplus = [name for name, entry in undeclared.items() if not entry["in_use"]]
        if prune:
            pending |= dict.fromkeys(surplus, "is not declared, to be removed")
        return {
            "models": [model["name"] for model in self.models],
            "pending": pending,
            "undeclared": undeclared,
        }


def is_for_ever(model: Model) -> bool:
    """Whether a model is to stay in memory."""
    return str(model["keep_alive"]).startswith("-")


def _context(server: Server, model: Model) -> int | None:
    """The context that the model is to be loaded with, when it is declared."""
    wanted = model["definition"]["parameters"].get("num_ctx") or server.context
    if not wanted:
        return None
    trained = trained_context(server.api.show(model["name"]))
    return int(min(wanted, trained or wanted))
