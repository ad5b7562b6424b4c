#!/usr/bin/python3
"""Has the declared weights on this host: fetched, whole, and nothing beside them.

usage: weights_loader.py CONFIG          bring the host to what CONFIG declares
       weights_loader.py --check CONFIG  change nothing, print what differs as JSON
       weights_loader.py --prune CONFIG  remove what CONFIG does not declare

Runs on the host in the unit llm-fleet-weights.service, as the user that owns the weights, so that
neither a lost SSH connection nor a reboot stops a fetch of 65 GB. Standard library only. CONFIG is
JSON (`fleet/weights/files.py` makes it); sizes are bytes, rates bytes a second, times seconds:

    {"dir": "/var/lib/llm-fleet-weights", "state": ".../state.json", "prune": false,
     "limits": {one key for each field of Limits},
     "weights": [{"name": "gpt-oss-120b", "source": "huggingface",
                  "endpoint": "https://huggingface.co", "repository": "openai/gpt-oss-120b",
                  "revision": "<40 digits>", "token": false,
                  "files": [{"path": "config.json", "size": 1, "sha256": "<64 digits>"}]}]}

A token is in the file `token` of $CREDENTIALS_DIRECTORY. It is sent to the endpoint, and not to
where that redirects. The state file is as `job_state.py` writes it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from attempts import Attempts, OutdatedError
from common import TO_BE_STARTED_ANEW, ProgramError, locked, log, say
from job_state import Entry, Phase, State
from outside import FormError, parsed
from transfer import Limits
from weights_store import File, Store, Weights
from weights_upstream import Upstream
from weights_work import Work

CONFIG = {
    "dir": str, "state": str, "prune": bool,
    "limits": {field.name: float for field in fields(Limits)},
    "weights": [{
        "name": str, "source": str, "endpoint": str, "repository": str, "revision": str,
        "token": bool, "files": [{"path": str, "size": int, "sha256": str}],
    }],
}  # fmt: skip


class Loader:
    """Brings one host's weights to what is declared, and writes down how far it is."""

    def __init__(
        self, config: dict[str, Any], is_outdated: Callable[[], bool] = lambda: False
    ) -> None:
        self.config = config
        self.limits = Limits(**config["limits"])
        self.store = Store(Path(config["dir"]))
        self.weights = [
            Weights(item["name"], item["revision"], tuple(File(**file) for file in item["files"]))
            for item in config["weights"]
        ]
        self.about = {item["name"]: item for item in config["weights"]}
        self.state = State(Path(config["state"]), {item.name: Entry() for item in self.weights})
        self.attempts = Attempts(self.state, self.limits, is_outdated)

    def check(self) -> dict[str, Any]:
        """What differs, without changing or hashing anything."""
        pending = {item.name: lack for item in self.weights if (lack := self.store.lacks(item))}
        if left := self.store.leftovers(self.weights):
            pending[str(self.store.root)] = f"has {len(left)} folders of fetches that were given up"
        undeclared = self.store.undeclared(self.weights)
        return {
            "models": [item.name for item in self.weights],
            "pending": pending,
            "undeclared": {
                name: {"size": size, "in_use": False} for name, size in undeclared.items()
            },
            "to_fetch": sum(self.store.to_fetch(item) for item in self.weights),
        }

    def run(self) -> bool:
        """Work through all weights; False if some are still not as declared at the end."""
        self.state.save()
        with locked(self.store.lock, self._note_the_other):
            self.state.notes = []
            token = _token()
            for item in self.weights:
                upstream = Upstream(self.about[item.name], token)
                self._with_attempts(Work(self.store, self.state, self.limits, item, upstream))
            for path in self.store.leftovers(self.weights):
                log(f"{path}: of a fetch that was given up, removed")
                self.store.remove(path)
        self.state.ok = self.state.all_are(Phase.READY)
        self.state.finished = True
        self.state.save()
        return self.state.ok

    def prune(self) -> bool:
        """Remove what is not declared, where that is wanted; False if a loader is at work."""
        with locked(self.store.lock, None) as is_ours:
            for name in self.store.undeclared(self.weights) if is_ours else ():
                if self.config["prune"]:
                    self.store.remove(self.store.root / name)
                    say(f"{name}: was not declared, removed")
        return is_ours

    def _with_attempts(self, work: Work) -> None:
        self.attempts.until_done(work.weights.name, work.provide, lambda: work.completed)

    def _note_the_other(self) -> None:
        note = f"another loader is at work in {self.store.root}: waiting for it"
        log(note)
        self.state.notes = [note]
        self.state.save()


def _token() -> str:
    """What the unit was given to be let into gated repositories; empty without any."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / "token" if folder else None
    return path.read_text().strip() if path and path.exists() else ""


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
        is_done = loader.prune() if options == ["--prune"] else loader.run()
    except OutdatedError as error:
        # Not here: the unit may be another one by now, with another directory open to it.
        log(f"{error}; the configuration was replaced meanwhile: to be started anew")
        return TO_BE_STARTED_ANEW
    except ProgramError as error:
        log(str(error))
        return 1
    return 0 if is_done else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
