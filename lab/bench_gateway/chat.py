"""Before the lab's Ollama servers: the throughput of the cheapest chat there is, of one token."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from lab.bench_gateway import affinity, backend, load, proxies
from lab.bench_gateway.goals import Row, at_least, ratios, told
from lab.bench_gateway.place import Place

GATEWAY, BARE, LEAST_CONN = 19011, 19012, 19013
_GOAL = 0.97
_AT_ONCE, _SECONDS = 16, 8


@contextmanager
def running(edge: Place, address: str, servers: Sequence[str]) -> Iterator[str]:
    """The three proxies on the lab's gateway host; a key of the gateway."""
    files, key = proxies.gateway(GATEWAY, servers, 5, address)
    files["whole.lua"] = load.script(key)
    with ExitStack() as stack:
        stack.enter_context(edge.nginx(proxies.folder_of(GATEWAY), files))
        for port, choice in ((BARE, ""), (LEAST_CONN, "least_conn;")):
            config = {"nginx.conf": proxies.bare(port, servers, choice=choice)}
            stack.enter_context(edge.nginx(proxies.folder_of(port), config))
        yield key


def measure(edge: Place, key: str, rounds: int, talks: int) -> list[Row]:
    """Throughput in `rounds`, and `talks` rounds of conversations."""
    rates: dict[int, list[float]] = {GATEWAY: [], BARE: []}
    script = f"{proxies.folder_of(GATEWAY)}/whole.lua"
    for number in range(rounds):
        for port in (GATEWAY, BARE) if number % 2 == 0 else (BARE, GATEWAY):
            url = f"http://127.0.0.1:{port}{backend.WHOLE}"
            rates[port].append(load.run(edge, url, script, _AT_ONCE, _SECONDS).rate)
    return [
        at_least(
            "before Ollama: throughput of a bare proxy_pass",
            _GOAL,
            ratios(rates[GATEWAY], rates[BARE]),
        ),
        told("... requests a second", rates[GATEWAY]),
        *affinity.measure(edge, GATEWAY, LEAST_CONN, key, talks),
    ]
