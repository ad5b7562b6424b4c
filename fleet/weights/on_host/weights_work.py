"""Brings the files of a revision to the disk: checked, shared, fetched, and put under its name."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from common import ProgramError, log, size_text
from job_state import Phase, State
from transfer import PATIENT, Limits, Progress, RefusedError, Watch, check_space, fetch
from weights_store import File, Store, Weights, is_folder, remove
from weights_upstream import OPENER, Upstream

_MAKE_ROOM = "make room there, or put weights_dir on a larger disk"


class Work:
    """One run's work on `weights`, which are at `upstream`.

    `completed` is how many of their bytes were there, at best.
    """

    def __init__(
        self, store: Store, state: State, limits: Limits, weights: Weights, upstream: Upstream
    ) -> None:
        self.store, self.state, self.limits = store, state, limits
        self.weights, self.upstream = weights, upstream
        self.completed = 0

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
        check_space(store.root, need, self.limits.disk_reserve, _MAKE_ROOM)
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
            self.completed = max(self.completed, before + at.completed)
            self._show(Phase.FETCHING, before + at.completed, self.weights.size, at.rate)

        fetch(
            url, path, self.limits, begins=begins, follow=follow,
            headers=self.upstream.headers, opened=OPENER.open, judged=self.upstream.refusal,
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
