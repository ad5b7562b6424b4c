"""What the upstream does wrong on purpose, told to it at run time; nothing by default.

``PUT /_lab/faults`` replaces the list of faults, ``GET /_lab/served`` tells how many bytes went out
for each path in answers to ranges (a resumed download asks for ranges alone), ``DELETE
/_lab/served`` starts to count anew. A fault is a JSON object; ``path`` is a pattern that the whole
path must match, and every other key is optional:

==============  ====================================================================
``client``      only requests from this address
``ranges``      only requests for a range of bytes
``times``       only so many requests, then never again
``status``      answer with this status and an error as body
``serve``       answer with the file of this other path
``size``        pretend that the file ends after so many bytes
``wrong_at``    flip the bits of the 1000 bytes from this offset on
``rate``        bytes a second, for each request ...
``rate_from``   ... and only from this offset on
``stall_at``    send nothing more from this offset on, but keep the connection
``cut_at``      close the connection at this offset
==============  ====================================================================
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, BinaryIO

CONTROL = "/_lab/"
BLOCK = 1 << 16
WRONG_LENGTH = 1000


@dataclass
class Fault:
    """One fault; see above."""

    path: str
    client: str | None = None
    ranges: bool = False
    times: int | None = None
    status: int | None = None
    serve: str | None = None
    size: int | None = None
    wrong_at: int | None = None
    rate: float | None = None
    rate_from: int = 0
    stall_at: int | None = None
    cut_at: int | None = None

    @property
    def is_in_the_body(self) -> bool:
        """Whether the bytes themselves, or when they come, are wrong."""
        return any(
            value is not None for value in (self.wrong_at, self.rate, self.stall_at, self.cut_at)
        )


class Faults:
    """The faults in force, and what was served."""

    def __init__(self) -> None:
        self.list: list[Fault] = []
        self.served: Counter[str] = Counter()
        self._lock = threading.Lock()

    def control(self, method: str, path: str, body: bytes) -> tuple[HTTPStatus, Any]:
        """Answer a request below ``/_lab/``."""
        with self._lock:
            if (method, path) == ("PUT", CONTROL + "faults"):
                try:
                    self.list = [Fault(**item) for item in json.loads(body)]
                except (TypeError, ValueError) as error:
                    return HTTPStatus.BAD_REQUEST, {"error": str(error)}
                return HTTPStatus.OK, {}
            if (method, path) == ("GET", CONTROL + "served"):
                return HTTPStatus.OK, dict(self.served)
            if (method, path) == ("DELETE", CONTROL + "served"):
                self.served.clear()
                return HTTPStatus.OK, {}
        return HTTPStatus.NOT_FOUND, {"error": f"no {method} {path}"}

    def take(self, path: str, client: str, *, is_range: bool) -> Fault | None:
        """The fault for a request, which is one of its ``times``."""
        with self._lock:
            for fault in self.list:
                if not re.fullmatch(fault.path, path) or fault.client not in (None, client):
                    continue
                if fault.times == 0 or (fault.ranges and not is_range):
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def count(self, path: str, length: int) -> None:
        """Note bytes that went out."""
        with self._lock:
            self.served[path] += length

    def send(
        self,
        fault: Fault,
        content: BinaryIO,
        first: int,
        length: int,
        write: Callable[[bytes], Any],
    ) -> bool:
        """Write ``length`` bytes from ``first`` on, with the fault; False: cut the connection.

        A stall ends when its fault is taken back.
        """
        content.seek(first)
        offset, end = first, first + length
        began, slow = time.monotonic(), 0
        while offset < end:
            if fault.cut_at is not None and offset >= fault.cut_at:
                return False
            while fault.stall_at is not None and offset >= fault.stall_at and fault in self.list:
                time.sleep(0.05)
            stops = [stop for stop in (fault.cut_at, fault.stall_at) if stop and stop > offset]
            block = content.read(min(BLOCK, *[stop - offset for stop in stops], end - offset))
            write(spoil(block, offset, fault.wrong_at))
            offset += len(block)
            if fault.rate and offset > fault.rate_from and fault in self.list:
                began = began if slow else time.monotonic()
                slow += len(block)
                time.sleep(max(began + slow / fault.rate - time.monotonic(), 0))
        return True


def spoil(block: bytes, offset: int, wrong_at: int | None) -> bytes:
    """Return the block with the bits of some of its bytes flipped."""
    if wrong_at is None:
        return block
    return (
        bytes(
            byte ^ 0xFF if wrong_at <= offset + place < wrong_at + WRONG_LENGTH else byte
            for place, byte in enumerate(block)
        )
        if wrong_at - len(block) < offset < wrong_at + WRONG_LENGTH
        else block
    )
