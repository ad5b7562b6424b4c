"""Clients of a gateway that ask all the while, and count what they were not answered."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import requests

_PER_SECOND = 5
# Of so many requests one is a stream, and that of so many tokens: it lasts while hosts change.
_ONE_IN = 5
_TOKENS = 24


@dataclass
class Load:
    """What clients met so far: how many were asked, and each failure with its second.

    `streams` are the chunks of each stream that ended as it should.
    """

    url: str
    key: str
    model: str
    began: float = field(default_factory=time.monotonic)
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)

    def ask(self, number: int) -> None:
        """One chat, some of them as a stream."""
        since = time.monotonic() - self.began
        try:
            trouble = self._chat(stream=number % _ONE_IN == 0)
        except requests.RequestException as error:
            trouble = repr(error)
        if trouble:
            self.failures.append(f"{since:.0f} s: {trouble}")

    def _chat(self, *, stream: bool) -> str:
        answer = requests.post(
            f"{self.url}/v1/chat/completions",
            headers={"Authorization": f"Bearer {self.key}"},
            json={
                "model": self.model,
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": _TOKENS if stream else 2,
                "stream": stream,
            },
            stream=stream,
            timeout=120,
        )
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text[:300]}"
        if stream:
            lines = [line for line in answer.iter_lines() if line]
            if lines[-1:] != [b"data: [DONE]"]:
                return f"a stream that ends in {lines[-1:]}"
            self.streams.append(len(lines))
            return ""
        text = json.loads(answer.content)["choices"][0]["message"]
        return "" if text else "an answer without a message"


@contextmanager
def under_load(url: str, key: str, model: str) -> Iterator[Load]:
    """Have five requests a second in the block, and all of them ended after it."""
    load = Load(url, key, model)
    over = threading.Event()

    def drive() -> None:
        with ThreadPoolExecutor(128) as pool:
            for number in count():
                if over.wait(max(0.0, load.began + number / _PER_SECOND - time.monotonic())):
                    return
                load.asked += 1
                pool.submit(load.ask, number)

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield load
    finally:
        over.set()
        thread.join(180)
    assert not thread.is_alive(), "requests without an end"
