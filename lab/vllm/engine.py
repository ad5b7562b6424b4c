"""The engine of the stand-in: a process of its own, whose worker is one more."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
ENDING = "cannot schedule new futures after shutdown"
LISTENERS = 13  # of the worker, on loopback, which nobody needs a key for
DYING = 1.0  # s, in which /health says 503 before the process ends
# What is in this memory already is the child's, whatever a Python does by default.
_FORK = multiprocessing.get_context("fork")
SENTENCE = ("one", "two", "three", "four", "five", "six", "seven", "eight")


class RefusedError(Exception):
    """An answer that is an error: its status, text, type and the field that is wrong."""

    def __init__(
        self, status: int, text: str, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.text, self.kind, self.param = status, text, kind, param

    @property
    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.text,
                "type": self.kind,
                "param": self.param,
                "code": self.status,
            }
        }


def _called(name: str) -> None:
    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME


def _worker(link: Connection, *others: Connection) -> None:
    _called("VLLM::Worker")
    for other in others:
        other.close()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(LISTENERS)]
    is_first = True
    while held:
        link.recv()
        if is_first:
            # What oneDNN does at the first inference; where the unit forbids it, this process ends.
            mmap.mmap(
                -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
            ).close()
            is_first = False
        link.send(None)


def _engine(link: Connection, other: Connection) -> None:
    _called("VLLM::EngineCore")
    other.close()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mine, theirs = _FORK.Pipe()
    worker = _FORK.Process(target=_worker, args=(theirs, mine, link), daemon=True)
    worker.start()
    theirs.close()
    try:
        while True:
            if link.poll(0.1):
                mine.send(link.recv())
                mine.recv()
                link.send(None)
            elif not worker.is_alive():
                return
    except (EOFError, OSError):
        worker.kill()


class Engine:
    """Makes tokens: none while it is stopped, and when it dies the whole server ends, with 0."""

    def __init__(self, most: int, queue: int | None) -> None:
        self.link, theirs = _FORK.Pipe()
        self.process = _FORK.Process(target=_engine, args=(theirs, self.link))
        self.process.start()
        theirs.close()
        self.turn, self.places = threading.Lock(), threading.Condition()
        self.most, self.queue = most, queue
        self.waiting = self.taken = self.running = 0
        self.is_dead = self.is_ending = self.is_aborting = False
        self.counts: Counter[str] = Counter()
        self.pace = 1 / float(os.environ.get("LAB_VLLM_TOKENS_PER_SECOND", "500"))

    def watch(self) -> None:
        """Ends this process, as vLLM does, soon after the engine's."""
        self.process.join()
        self.is_dead = True
        sys.stderr.write(f"ERROR {DEAD}\n")
        time.sleep(DYING)
        os._exit(0)

    @contextmanager
    def place(self) -> Iterator[bool]:
        """A place among those that are answered, waited for; False where it is one too many.

        `--max-num-queued-reqs` is about all that are in the engine: 3, with two that are answered
        at once, were seen to take three.
        """
        with self.places:
            is_one_too_many = self.queue is not None and self.waiting + self.taken >= self.queue
            if not is_one_too_many:
                self.waiting += 1
                self.places.wait_for(lambda: self.taken < self.most)
                self.waiting, self.taken = self.waiting - 1, self.taken + 1
        try:
            yield not is_one_too_many
        finally:
            if not is_one_too_many:
                with self.places:
                    self.taken -= 1
                    self.places.notify()

    def step(self) -> None:
        """One token."""
        time.sleep(self.pace)
        try:
            with self.turn:
                self.link.send(None)
                self.link.recv()
        except (EOFError, OSError):
            self.is_dead = True
            raise RefusedError(500, DEAD, "InternalServerError") from None
        self.counts["iterations"] += 1

    def made(self, prompt: int, most: int, natural: int) -> Generator[str, None, str]:
        """The words of an answer; what it returns is why it ends."""
        if self.is_ending:
            raise RefusedError(500, ENDING, "InternalServerError")
        reason, counted = "abort", False
        try:
            for number in range(min(most, natural)):
                self.step()
                if not counted:
                    self.running, counted = self.running + 1, True
                    self.counts["prompt"] += prompt
                if self.is_aborting:
                    return reason
                self.counts["generation"] += 1
                yield SENTENCE[number % len(SENTENCE)]
            reason = "length" if most < natural else "stop"
            return reason
        finally:
            self.running -= counted
            self.counts[f"success:{reason}"] += 1
