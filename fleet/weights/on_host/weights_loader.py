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

import errno
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from attempts import Attempts, OutdatedError
from common import TO_BE_STARTED_ANEW, ProgramError, locked, log, say, size_text
from hub import ERROR_CODE, file_url, meaning, origin
from job_state import Entry, Phase, State
from outside import FormError, parsed
from transfer import (
    PATIENT,
    BusyError,
    Limits,
    Progress,
    RefusedError,
    Watch,
    check_space,
    explained,
    fetch,
    retry_after,
)
from weights_store import File, Store, Weights, is_folder, remove

_MAKE_ROOM = "make room there, or put weights_dir on a larger disk"

CONFIG = {
    "dir": str, "state": str, "prune": bool,
    "limits": {field.name: float for field in fields(Limits)},
    "weights": [{
        "name": str, "source": str, "endpoint": str, "repository": str, "revision": str,
        "token": bool, "files": [{"path": str, "size": int, "sha256": str}],
    }],
}  # fmt: skip


class Upstream:
    """Where weights are from: the address of each file, and how it is asked."""

    def __init__(self, about: dict[str, Any], token: str) -> None:
        self._about = about
        self._token = token if about["token"] else ""

    def url(self, file: File) -> str:
        """Where a file's content is."""
        return file_url(
            self._about["source"],
            self._about["endpoint"],
            self._about["repository"],
            self._about["revision"],
            file.path,
        )

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with each question."""
        # Compressed, it would be other bytes than those that are counted and resumed.
        plain = {"Accept-Encoding": "identity", "User-Agent": "llm-fleet"}
        return {**plain, "Authorization": f"Bearer {self._token}"} if self._token else plain

    def refusal(self, error: urllib.error.HTTPError, url: str) -> ProgramError:
        """What a refusal means, in words."""
        found = explained(error, url)
        words = meaning(error.code, error.headers.get(ERROR_CODE), has_token=bool(self._token))
        text = f"{found}: {words}" if words else str(found)
        if isinstance(found, BusyError):
            return BusyError(text, retry_after(error))
        return type(found)(text)


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections, and tells no other origin who asks."""

    def redirect_request(self, req: Any, fp: Any, code: int, *rest: Any) -> Any:
        # Python 3.10 does not know 308, which for a GET is 307.
        new = super().redirect_request(req, fp, 307 if code == 308 else code, *rest)
        if new is not None and origin(new.full_url) != origin(req.full_url):
            new.remove_header("Authorization")
        return new

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


_OPENER = urllib.request.build_opener(_Redirections)


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
        self.fetched = 0  # bytes of the present weights that are there, at best

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
                self.fetched = 0
                work = Work(self, item, Upstream(self.about[item.name], token))
                self.attempts.until_done(item.name, work.provide, lambda: self.fetched)
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

    def _note_the_other(self) -> None:
        note = f"another loader is at work in {self.store.root}: waiting for it"
        log(note)
        self.state.notes = [note]
        self.state.save()


class Work:
    """One run's work on `weights`, which are at `upstream`."""

    def __init__(self, loader: Loader, weights: Weights, upstream: Upstream) -> None:
        self.loader, self.store, self.state = loader, loader.store, loader.state
        self.weights, self.upstream = weights, upstream

    def provide(self) -> int:
        """Have all files in the folder that has the revision's name; their bytes.

        Raises:
            RefusedError: trying again at once would not help.
            ProgramError, OSError, ValueError: it may go better at the next attempt.
        """
        try:
            self._provide()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RefusedError(f"{self.store.root}: {error.strerror}; {_MAKE_ROOM}") from None
            raise
        return self.weights.size

    def _provide(self) -> None:
        store, weights = self.store, self.weights
        if not (lack := store.lacks(weights)):
            return
        folder, part = store.folder(weights), store.part(weights)
        if is_folder(folder):
            log(f"{weights.name} {lack}")
            if not (missing := self._unfit(folder)):
                store.save()
                return
            store.demote(weights)
        else:
            remove(folder)
            missing = self._unfit(store.begin(weights))
        for file in missing:
            remove(part / file.path)
        missing = [file for file in missing if not self._shared(file)]
        partly = sum(_length(store.incomplete(weights, file)) for file in missing)
        need = sum(file.size for file in missing) - partly
        check_space(store.root, need, self.loader.limits.disk_reserve, _MAKE_ROOM)
        for file in missing:
            self._fetch(file, weights.size - sum(other.size for other in missing))
            missing = [other for other in missing if other is not file]
        store.promote(weights)

    def _unfit(self, folder: Path) -> list[File]:
        """The files that are not in `folder` as they should be; what else is there is removed."""
        for name in reversed(self.store.surplus(self.weights, folder)):
            log(f"{folder}/{name}: in no lock, removed")
            self.store.remove(folder / name)
        unfit = []
        unknown = self.store.missing(self.weights, folder)
        report = self._meter(Phase.CHECKING, sum(file.size for file in unknown))
        for file in unknown:
            path = folder / file.path
            if fault := self.store.check(path, file, report):
                unfit.append(file)
                if os.path.lexists(path):
                    log(f"{path} {fault}: to be fetched again")
        return unfit

    def _shared(self, file: File) -> bool:
        other = self.store.elsewhere(file)
        if other is None:
            return False
        self.store.share(self.weights, file, other)
        return True

    def _fetch(self, file: File, before: int) -> None:
        """Have a file among the whole ones; `before` are the bytes of those that are there."""
        path, url = self.store.incomplete(self.weights, file), self.upstream.url(file)
        if _length(path) > file.size:
            path.unlink()
        had = _length(path)
        if had < file.size:
            self._receive(file, path, url, before)
        elif not file.size:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        fault = self.store.check(path, file, self._meter(Phase.VERIFYING, file.size))
        if not fault:
            self.store.place(self.weights, file, path)
            return
        remove(path)
        if had:
            # Its beginning, of an earlier run, may be what is wrong.
            raise ProgramError(f"{url}: {fault}: begun anew")
        raise RefusedError(
            f"{url}: {fault}: deleted. The source, or a mirror or proxy before it, serves other "
            "bytes than those that were locked"
        )

    def _receive(self, file: File, path: Path, url: str, before: int) -> None:
        def begins(at: Progress) -> None:
            if at.total and at.total != file.size:
                raise RefusedError(
                    f"{url}: has {at.total} bytes, the lock says {file.size}: nothing was fetched"
                )
            self._show(Phase.FETCHING, before + at.completed, self.weights.size, 0)

        def follow(at: Progress) -> None:
            if at.completed > file.size:
                remove(path)
                raise RefusedError(f"{url}: goes on after the {file.size} bytes that the lock says")
            self.loader.fetched = max(self.loader.fetched, before + at.completed)
            self._show(Phase.FETCHING, before + at.completed, self.weights.size, at.rate)

        fetch(
            url, path, self.loader.limits, begins=begins, follow=follow,
            headers=self.upstream.headers, opened=_OPENER.open, judged=self.upstream.refusal,
        )  # fmt: skip
        if (length := _length(path)) != file.size:
            raise ProgramError(f"{url}: ended at {size_text(length)} of {size_text(file.size)}")

    def _meter(self, phase: Phase, total: int) -> Callable[[int], None]:
        """A report for hashing `total` bytes."""
        done, watch = 0, Watch(PATIENT, time.monotonic())

        def report(length: int) -> None:
            nonlocal done
            done += length
            self._show(phase, done, total, watch.saw(done, total, time.monotonic()))

        return report

    def _show(self, phase: Phase, completed: int, total: int, rate: float) -> None:
        self.state.update(
            self.weights.name,
            now=phase is not self.state.models[self.weights.name].phase,
            phase=phase, completed=completed, total=total, rate=int(rate),
        )  # fmt: skip


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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
