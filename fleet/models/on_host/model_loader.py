#!/usr/bin/python3
"""Has the declared models on this host: pulled, whole, created, pruned and in memory.

usage: model_loader.py CONFIG          bring the host to what CONFIG declares
       model_loader.py --check CONFIG  change nothing, print what differs as JSON

Runs on the host in the unit ollama-models.service, as the user that owns the models, so that
neither a lost SSH connection nor a reboot stops a pull of 65 GB. Standard library only. CONFIG is
JSON (`fleet/models/files.py` makes it); sizes are bytes, rates bytes a second, times seconds:

    {"api": "http://127.0.0.1:11434", "models_dir": "/var/lib/ollama/models",
     "state": ".../state.json", "memory": ".../memory.json", "choice": ".../choice.json",
     "prune": false, "context": null, "limits": {one key for each field of Limits},
     "models": [{"name": "gpt-oss:20b", "source": "mirror:5000/library/gpt-oss:20b",
                 "insecure": true, "digest": null, "base": null, "gguf": null, "sha256": null,
                 "definition": {"system": "...", "template": "...", "parameters": {}},
                 "load": false, "keep_alive": -1}]}

With `others`, a list of {"api": ..., "context": ...}, further Ollamas use the directory: what is
on the disk is provided once, through the first that answers, and what is to be in memory is loaded
into each; one that is down keeps none of the others from it. A server with `serves`, a list of
names, is for those models alone.

The state file holds `finished`, `ok`, and for each model `phase` (waiting, checking, pulling,
verifying, fetching, importing, creating, loading, ready, failed), `completed` and `total`, `rate`,
`left` in seconds, `error` (the last one) and `attempts`. The memory file holds which blobs were
hashed and found right (with their size and times), and which models were created and loaded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from attempts import Attempts, OutdatedError
from common import TO_BE_STARTED_ANEW, ProgramError, locked, log, say
from job_state import Entry, Phase, State
from model_check import Comparison, Model, Server, is_for_ever
from model_provider import Provider
from model_store import Store
from ollama_api import Api
from ollama_protocol import VERSION
from outside import FormError, parsed, read_file
from transfer import Limits, RefusedError

API_PATIENCE = 60  # Ollama may be starting beside us

AUTO = "auto:latest"

_SERVER = {"api": str, "context": (int, None), "serves?": [str]}
_MODEL = {
    "name": str, "source": str, "insecure": bool, "digest?": str, "base?": str, "gguf?": str,
    "sha256?": str, "load": bool, "keep_alive": (float, str),
    "definition": {"system?": str, "template?": str, "parameters": {}},
}  # fmt: skip
CONFIG = {
    **_SERVER, "models_dir": str, "state": str, "memory": str, "choice": str, "prune": bool,
    "limits": {field.name: float for field in fields(Limits)}, "models": [_MODEL],
    "others?": [_SERVER],
}  # fmt: skip


class Loader:
    """Brings one host's models to what is declared, and writes down how far it is."""

    def __init__(
        self, config: dict[str, Any], is_outdated: Callable[[], bool] = lambda: False
    ) -> None:
        self.config = config
        self.is_outdated = is_outdated
        self.limits = Limits(**config["limits"])
        self.servers = [
            Server(Api(item["api"]), item["context"], item.get("serves"))
            for item in (config, *(config.get("others") or []))
        ]
        self.store = Store(Path(config["models_dir"]), Path(config["memory"]))
        self.models = _resolve(config["models"], Path(config["choice"]))
        self.compared = Comparison(self.store, self.servers, self.models)
        entries = {model["name"]: Entry() for model in self.models}
        self.state = State(Path(config["state"]), entries)
        self.attempts = Attempts(self.state, self.limits, is_outdated)
        self.provider = Provider(self.servers[0].api, self.compared, self.limits, self.state)

    def check(self) -> dict[str, Any]:
        """What differs, without changing or hashing anything."""
        return self.compared.answer(prune=self.config["prune"])

    def run(self) -> bool:
        """Work through all models; False if one is still not as declared at the end."""
        self.state.save()
        with locked(self.store.root / ".llm-fleet.lock", self._note_the_other):
            self.state.notes = []
            self.store.remove_what_is_no_manifest()
            self._wait_for_api()
            for model in self.models:
                self._with_attempts(model, self.provider.provide)
            if not any(self.state.failed(model["name"]) for model in self.models):
                self._prune()
                self.store.sweep()
        # Last, and in the declared order: what was only tried has not pushed these out.
        for model in self.models:
            if model["load"] and not self.state.failed(model["name"]):
                self._with_attempts(model, self._load)
        self.state.ok = self.state.all_are(Phase.READY)
        self.state.finished = True
        self.state.save()
        return self.state.ok

    def _note_the_other(self) -> None:
        """One loader at a time in a models directory, however many Ollamas share it."""
        note = f"another loader is at work in {self.store.root}: waiting for it"
        log(note)
        self.state.notes = [note]
        self.state.save()

    def _wait_for_api(self) -> None:
        """Wait for every server, and work through the first that answers."""
        deadline = time.monotonic() + API_PATIENCE
        answering = [item for item in self.servers if self._answers(item.api, deadline)]
        if answering:
            self.provider.api = answering[0].api
            self.provider.answering = answering

    def _answers(self, api: Api, deadline: float) -> bool:
        while True:
            try:
                api.call("/api/version", form=VERSION)
            except (ProgramError, OSError, ValueError) as error:
                if time.monotonic() >= deadline:
                    return False
                if self.is_outdated():
                    raise OutdatedError(f"{api.host}: {error}") from None
                time.sleep(0.5)
            else:
                return True

    def _with_attempts(self, model: Model, work: Callable[[Model], None]) -> None:
        """Try until it is done."""
        self.provider.completed = 0

        def attempt() -> int:
            work(model)
            return self.store.size(model["name"])

        self.attempts.until_done(model["name"], attempt, lambda: self.provider.completed)

    def _load(self, model: Model) -> None:
        always = bool(self.compared.untried(model)) or not is_for_ever(model)
        failures = []
        for server in self.compared.serving(model):
            try:
                if always or self.compared.not_in(server, model):
                    self.state.update(model["name"], phase=Phase.LOADING)
                    server.api.load(model["name"], keep_alive=model["keep_alive"])
                    self.compared.note_tried(model)
            except (ProgramError, OSError, ValueError) as error:
                where = f"{server.api.host}: " if len(self.servers) > 1 else ""
                failures.append(f"{where}{error}")
        if failures:
            raise ProgramError("; ".join(failures))
        if lack := self.compared.unloaded(model):
            raise ProgramError(
                f"{lack}, although it was just loaded: does it fit beside the others?"
            )

    def _prune(self) -> None:
        try:
            undeclared = self.compared.undeclared(self.provider.api)
        except (ProgramError, OSError, ValueError) as error:
            log(f"a server cannot be asked what it uses, so nothing is removed: {error}")
            return
        for name, entry in undeclared.items():
            if not self.config["prune"]:
                log(f"{name}: is not declared; models_prune = True removes it")
            elif entry["in_use"]:
                log(f"{name}: is not declared, but in use, so it stays")
            else:
                self._remove(name)

    def _remove(self, name: str) -> None:
        try:
            self.provider.api.call("/api/delete", {"model": name}, "DELETE")
        except (ProgramError, OSError, ValueError) as error:
            log(f"{name}: is not declared, and cannot be removed: {error}")
        else:
            log(f"{name}: was not declared, removed")


def _resolve(declared: list[Model], choice: Path) -> list[Model]:
    """The models with `auto` replaced by this host's choice, bases first.

    What was declared as `auto` has that for an `alias`: another name on the disk, so that whoever
    asks a fleet for `auto` is answered by each host's own choice.
    """
    chosen = ""
    if any(AUTO in (model["name"], model["base"]) for model in declared):
        try:
            chosen = parsed(read_file(choice, 65_536), {"model": str}, str(choice))["model"]
        except FileNotFoundError:
            raise RefusedError("no model was chosen for this host yet; run the deploy") from None
        except FormError as error:
            raise RefusedError(f"{error}: delete it and run the deploy") from None
    models: dict[str, Model] = {}
    for model in sorted(declared, key=lambda model: bool(model["base"])):
        named = dict(model)
        if model["name"] == AUTO:
            source = model["source"].removesuffix(AUTO) + chosen
            named |= {"name": chosen, "source": source, "alias": AUTO}
        if model["base"] == AUTO:
            named["base"] = chosen
        first = models.setdefault(named["name"], named)
        first["alias"] = first.get("alias") or named.get("alias")
    return list(models.values())


def main(arguments: list[str]) -> int:
    """Run with the configuration named on the command line; the exit status."""
    *options, path = arguments
    text = Path(path).read_bytes()
    try:
        config = parsed(text, CONFIG, path)
    except FormError as error:
        log(f"{error}: run the deploy, which writes it anew")
        return 1
    try:
        loader = Loader(config, lambda: Path(path).read_bytes() != text)
        if options == ["--check"]:
            say(json.dumps(loader.check()))
            return 0
        return 0 if loader.run() else 1
    except OutdatedError as error:
        # Not here: the unit may be another one by now, with other directories open to it.
        log(f"{error}; the configuration was replaced meanwhile: to be started anew")
        return TO_BE_STARTED_ANEW
    except ProgramError as error:
        if options == ["--check"]:
            names = [model["name"] for model in config["models"]]
            pending = dict.fromkeys(names, str(error))
            say(json.dumps({"models": names, "pending": pending, "undeclared": {}}))
            return 0
        log(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
