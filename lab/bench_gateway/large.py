"""A body of 60 MB: how long other requests wait beside it."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from lab.bench_gateway import backend, empty, proxies
from lab.bench_gateway.goals import Row, at_most, differences, told
from lab.bench_gateway.proxies import MODEL
from lab.state import LabError

_SIZE = 60_000_000
_GOAL = 50  # ms
_PROBES, _PAUSE = 8, 0.01  # connections, and seconds between two requests of each


def _picture() -> str:
    """As one that sends a large picture."""
    return "A" * (_SIZE - 300)


def _odd() -> str:
    """As one that means to be slow to read: quotes that are escaped, as many as are let through."""
    return '\\"' * 1_900_000 + "A" * (_SIZE - 2 * 1_900_000 - 300)


_KINDS: dict[str, Callable[[], str]] = {"of a picture": _picture, "made to be slow": _odd}


def measure(rounds: int) -> list[Row]:
    """The slowest small request with a body on its way, less the slowest in as long without one."""
    key = empty.key()
    body = Path(proxies.folder_of(empty.FEW), "large.json")
    rows = []
    for kind, text in _KINDS.items():
        head, tail = json.dumps(
            {"model": MODEL, "messages": [{"role": "user", "content": "\x00"}]}
        ).split("\\u0000")
        body.write_text(head + text() + tail)
        with_it, without = [], []
        for _ in range(rounds):
            slowest, took = asyncio.run(_beside(key, body))
            with_it.append(slowest)
            without.append(asyncio.run(_alone(key, took)))
        rows += [
            at_most(
                f"delay by a body of 60 MB, {kind}", _GOAL, differences(with_it, without), " ms"
            ),
            told("... the slowest request beside it", with_it, " ms"),
            Row(
                "... the slowest of all rounds, with and without",
                f"{max(with_it):.0f} and {max(without):.0f} ms",
            ),
        ]
    return rows


async def _beside(key: str, body: Path) -> tuple[float, float]:
    """ms of the slowest small request while `body` is sent, and seconds that it took."""
    done = asyncio.Event()
    probing = asyncio.create_task(_slowest(key, done))
    await asyncio.sleep(0.2)
    start = time.monotonic()
    try:
        await _send(key, body)
    finally:
        done.set()
    return await probing, time.monotonic() - start


async def _alone(key: str, lasts: float) -> float:
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(lasts + 0.2, done.set)
    return await _slowest(key, done)


async def _send(key: str, body: Path) -> None:
    config = f'header = "Authorization: Bearer {key}"\nheader = "Expect:"\n'
    url = f"http://127.0.0.1:{empty.FEW}{backend.WHOLE}"
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-K", "-", "--data-binary", f"@{body}", "-o", "/dev/null",
        "-w", "%{http_code}", url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await curl.communicate(config.encode())
    if told != b"200":
        raise LabError(f"the body of 60 MB was answered with {told.decode()}")


async def _slowest(key: str, done: asyncio.Event) -> float:
    """ms of the slowest request of some connections, each of which asks at a steady pace."""
    text = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]})
    request = (
        f"POST {backend.WHOLE} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    ).encode()
    return max(await asyncio.gather(*(_probe(request, done) for _ in range(_PROBES)))) * 1000


async def _probe(request: bytes, done: asyncio.Event) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", empty.FEW)
    slowest = 0.0
    while not done.is_set():
        start = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise LabError(f"a small request was refused: {head.decode()}")
        await _rest(reader, head)
        slowest = max(slowest, time.perf_counter() - start)
        await asyncio.sleep(_PAUSE)
    writer.close()
    return slowest


async def _rest(reader: asyncio.StreamReader, head: bytes) -> None:
    """Read a body to its end, however its length is told."""
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    if length:
        await reader.readexactly(int(length))
        return
    while (line := await reader.readline()) != b"0\r\n":
        await reader.readexactly(int(line, 16) + 2)
    await reader.readexactly(2)
