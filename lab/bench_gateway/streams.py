"""A thousand streams that are open at once: what memory they take."""

import asyncio
import json
import resource

from lab.bench_gateway import backend, empty, proxies, workers
from lab.bench_gateway.goals import Row, at_most, told
from lab.bench_gateway.proxies import MODEL
from lab.state import LabError

_STREAMS = 1000
_GOAL = 150  # MB
_OPEN = 45.0  # seconds in which all must have begun


def measure() -> list[Row]:
    """Open them before the slow answer of the server that does nothing."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    folder = proxies.folder_of(empty.FEW)
    before = workers.memory(folder)
    during = asyncio.run(_open(folder))
    return [
        at_most(f"memory of all workers with {_STREAMS} open streams", _GOAL, [during], " MB"),
        told("... without", [before], " MB"),
    ]


async def _open(folder: str) -> float:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x" * 400}]})
    head = (
        f"POST {backend.SLOW} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {empty.key()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    streams = [asyncio.create_task(_stream((head + body).encode())) for _ in range(_STREAMS)]
    try:
        async with asyncio.timeout(_OPEN):
            writers = await asyncio.gather(*streams)
        # Another part of each.
        await asyncio.sleep(2)
        during = workers.memory(folder)
        for writer in writers:
            writer.close()
    finally:
        for stream in streams:
            stream.cancel()
    return during


async def _stream(request: bytes) -> asyncio.StreamWriter:
    """Ask, and wait for the first part of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", empty.FEW)
    writer.write(request)
    answer = await reader.readuntil(b"}\n")
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        raise LabError(f"a stream was refused: {answer.decode()}")
    asyncio.get_running_loop().create_task(reader.read())
    return writer
