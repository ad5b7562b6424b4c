"""Requests as fast as they are answered, by wrk."""

import json
import re
from dataclasses import dataclass

from lab.bench_gateway.place import Place
from lab.bench_gateway.proxies import MODEL
from lab.state import LabError

# Each request begins a conversation of its own: a gateway that keeps those of one together would
# send equal ones to one server.
_SCRIPT = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
local head, tail, number = '{head}', '{tail}', math.random(1000000000)
function request()
  number = number + 1
  return wrk.format(nil, nil, nil, head .. number .. tail)
end
"""


@dataclass(frozen=True)
class Load:
    """What came of it: requests in all, and a second."""

    requests: int
    rate: float


def script(key: str, *, streamed: bool = False) -> str:
    """wrk's script: a chat of 400 bytes that asks for one token, or a streamed completion."""
    mark = "\x00"
    asked = f"{mark}{'x' * 400}"
    body = (
        {"model": MODEL, "stream": True, "max_tokens": 1, "prompt": asked}
        if streamed
        else {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": asked}]}
    )
    head, _, tail = json.dumps(body).partition(json.dumps(mark).strip('"'))
    return _SCRIPT.format(key=key, head=head, tail=tail)


def run(place: Place, url: str, path: str, connections: int, seconds: int) -> Load:
    """Ask `url` from `place` with the script that lies at `path` there."""
    return read(place.run(f"wrk -t1 -c{connections} -d{seconds}s --timeout 30s -s {path} {url}"))


def read(told: str) -> Load:
    """What wrk told; every request must have been answered."""
    failed = re.search(r"Non-2xx.*|Socket errors:.*", told)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    count = re.search(r"(\d+) requests in ", told)
    if failed or rate is None or count is None or count[1] == "0":
        raise LabError(f"not every request was answered, by what wrk said:\n{told}")
    return Load(int(count[1]), float(rate[1]))
