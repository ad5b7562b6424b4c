"""Large files on their way to this host: bounds of patience and of room, resuming, rates."""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import BLOCK, ProgramError, size_text

RATE_WINDOW = 10  # seconds that a shown rate is an average of


class StalledError(ProgramError):
    """No new byte for too long."""


class TooSlowError(ProgramError):
    """The rate fell below the declared one; a fresh connection often is faster."""


class RefusedError(ProgramError):
    """Trying again at once would not help; a person, or time, must change something."""


class BusyError(ProgramError):
    """The server asks to come back later; `wait` is in how many seconds, 0 if it does not say."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


@dataclass(frozen=True)
class Limits:
    """Bounds of patience and of room: seconds, bytes a second, bytes."""

    no_progress: float
    slow_rate: float  # 0: never interrupt a slow transfer
    slow_window: float
    attempts: int  # in a row, without a new byte
    first_delay: float
    longest_delay: float
    disk_reserve: float

    def delay(self, fruitless: int) -> float:
        """How long to wait after so many attempts in a row without a new byte."""
        return min(self.first_delay * float(2 ** (fruitless - 1)), self.longest_delay)


PATIENT = Limits(1e9, 0, 0, 1, 0, 0, 0)  # to measure a rate, and judge nothing


@dataclass(frozen=True)
class Progress:
    """How far a transfer is: bytes, and bytes a second."""

    completed: int
    total: int
    rate: float = 0.0


class Watch:
    """Judges a transfer by what it has completed at what time."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.began = self.moved = now
        self.best = -1
        self.samples: deque[tuple[float, int]] = deque()

    def saw(self, completed: int, total: int, now: float) -> float:
        """The rate, as the average over a few seconds.

        Raises:
            StalledError: nothing new came for too long.
            TooSlowError: the average over the declared window is below the declared rate.
        """
        if completed > self.best:
            self.best, self.moved = completed, now
        if completed < total and now - self.moved >= self.limits.no_progress:
            raise StalledError(
                f"no new byte for {now - self.moved:.0f} s, at {size_text(completed)} of "
                f"{size_text(total)}"
            )
        self.samples.append((now, completed))
        window = max(RATE_WINDOW, self.limits.slow_window)
        while now - self.samples[0][0] > window:
            self.samples.popleft()
        self._refuse_slow(completed, total, now)
        return self._rate(now, RATE_WINDOW)

    def _refuse_slow(self, completed: int, total: int, now: float) -> None:
        window = self.limits.slow_window
        if not self.limits.slow_rate or completed >= total or now - self.began < window:
            return
        rate = self._rate(now, window)
        if rate < self.limits.slow_rate:
            raise TooSlowError(
                f"{size_text(rate)}/s over {window:.0f} s is below "
                f"{size_text(self.limits.slow_rate)}/s, at {size_text(completed)} of "
                f"{size_text(total)}: interrupted, to resume at once"
            )

    def _rate(self, now: float, window: float) -> float:
        first = next(sample for sample in self.samples if now - sample[0] <= window)
        elapsed = now - first[0]
        return max(self.samples[-1][1] - first[1], 0) / elapsed if elapsed > 0 else 0.0


def check_space(directory: Path, need: int, reserve: float, fix: str) -> None:
    """Refuse what would not fit into the file system of `directory`; `fix` tells what may help.

    Raises:
        RefusedError: fewer than `need` and `reserve` bytes are free.
    """
    free = os.statvfs(directory)
    available = free.f_bavail * free.f_frsize
    if need and need + reserve > available:
        raise RefusedError(
            f"needs {size_text(need)} and a reserve of {size_text(reserve)}, but "
            f"{size_text(available)} are free in {directory}: nothing was fetched; {fix}"
        )


def explained(error: urllib.error.HTTPError, url: str) -> ProgramError:
    """What a server's refusal means: nothing changes it soon, or it may go better next time."""
    text = f"{url}: {error.code} {error.reason}"
    if error.code in (429, 503):
        return BusyError(text, retry_after(error))
    return (RefusedError if error.code in (401, 403, 404, 410) else ProgramError)(text)


def retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that a server asks to wait; 0 if it does not say in seconds."""
    told = error.headers.get("Retry-After") or ""
    return float(told) if re.fullmatch(r"[0-9]{1,6}", told) else 0.0


def fetch(  # noqa: PLR0913 - each is one more thing of a transfer
    url: str,
    part: Path,
    limits: Limits,
    *,
    begins: Callable[[Progress], None],
    follow: Callable[[Progress], None],
    headers: Mapping[str, str] | None = None,
    opened: Callable[..., Any] = urllib.request.urlopen,
    judged: Callable[[urllib.error.HTTPError, str], ProgramError] = explained,
) -> None:
    """Have the file at `url` as `part`, from where an earlier fetch of it broke off.

    `begins` is told what is there and how large it will be before the first byte comes, and may
    refuse; `follow` is told of each block, and may refuse too. A `total` of 0 is one that the
    server does not tell. What the file should be is the caller's to check. `opened` sends the
    request and follows redirections; `judged` says what a refusal means.

    Raises:
        RefusedError: the server does not have it, or not for us.
        ProgramError: it failed in another way, and may go better at the next attempt.
        OSError: the connection broke.
    """
    part.parent.mkdir(exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    wanted = {**(headers or {}), "Range": f"bytes={have}-"}
    request = urllib.request.Request(url, headers=wanted)  # noqa: S310
    try:
        answer = opened(request, timeout=limits.no_progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:  # it was whole already
                return
            raise judged(error, url) from None
    except urllib.error.URLError as error:
        raise ProgramError(f"{url}: {error.reason}") from None
    except http.client.HTTPException as error:
        raise ProgramError(f"{url}: {error!r}") from None
    with answer:
        have = _starts_at(url, answer, have)
        length = _length(url, answer)
        total = have + length if length is not None else 0
        begins(Progress(have, total))
        have = _receive(answer, part, Progress(have, total), limits, follow)
    if have < total:
        raise ProgramError(f"{url}: cut at {size_text(have)} of {size_text(total)}")


def _starts_at(url: str, answer: http.client.HTTPResponse, have: int) -> int:
    """Where in the file the answer begins: where it was asked to, or at its very beginning."""
    if answer.status != 206:
        return 0
    told = answer.headers.get("Content-Range", f"bytes {have}-")
    if not re.match(rf"bytes {have}-", told):
        raise ProgramError(f"{url}: was asked for what follows {have} bytes, and sends {told!r}")
    return have


def _length(url: str, answer: http.client.HTTPResponse) -> int | None:
    """Bytes of the answer, where the server tells."""
    told = answer.headers.get("Content-Length")
    if told is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", told):
        raise ProgramError(f"{url}: its length is {told[:40]!r}, which is no number of bytes")
    return int(told)


def _receive(
    answer: http.client.HTTPResponse,
    part: Path,
    at: Progress,
    limits: Limits,
    follow: Callable[[Progress], None],
) -> int:
    watch = Watch(limits, time.monotonic())
    have = at.completed
    with part.open("r+b" if have else "wb") as file:
        file.seek(have)
        while block := _block(answer, limits.no_progress):
            file.write(block)
            have += len(block)
            follow(Progress(have, at.total, watch.saw(have, at.total, time.monotonic())))
    return have


def _block(answer: http.client.HTTPResponse, patience: float) -> bytes:
    try:
        return answer.read1(BLOCK)
    except TimeoutError:
        raise StalledError(f"no new byte for {patience:.0f} s") from None
    except http.client.HTTPException as error:
        raise ProgramError(f"the answer broke off: {error!r}") from None
