"""Before a server that does nothing: what a request costs the gateway."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.bench_gateway import backend, litellm, load, proxies, workers
from lab.bench_gateway.goals import Row, at_least, ratios, told
from lab.bench_gateway.place import HERE

BARE, KEPT, FEW, MANY = 19001, 19002, 19003, 19004
_AT_ONCE, _SECONDS = 16, 1
_SERVER = f"127.0.0.1:{backend.PORT}"


@dataclass
class Asked:
    """One way to ask: what was found in each round."""

    url: str
    script: str
    folder: str = ""  # of the proxy, where its processor time is to be known
    rates: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)  # us of the workers a request

    def round(self) -> None:
        """Ask as fast as it is answered."""
        before = workers.seconds(self.folder) if self.folder else 0.0
        many = load.run(HERE, self.url, self.script, _AT_ONCE, _SECONDS)
        after = workers.seconds(self.folder) if self.folder else 0.0
        self.cost.append((after - before) / many.requests * 1e6)
        self.rates.append(many.rate)


@contextmanager
def running(*, beside_litellm: bool) -> Iterator[dict[str, Asked]]:
    """All that is compared, by name; the gateways are at FEW and MANY."""
    with ExitStack() as stack:
        enter = stack.enter_context
        enter(HERE.nginx(proxies.folder_of(backend.PORT), {"nginx.conf": backend.config()}))
        for port, kept in ((BARE, False), (KEPT, True)):
            files = {"nginx.conf": proxies.bare(port, [_SERVER], kept=kept)}
            enter(HERE.nginx(proxies.folder_of(port), files))
        for port, keys in ((FEW, 5), (MANY, 500)):
            files, key = proxies.gateway(port, [_SERVER], keys, "10.0.0.2")
            scripts = {
                "whole.lua": load.script(key),
                "streamed.lua": load.script(key, streamed=True),
            }
            enter(HERE.nginx(proxies.folder_of(port), {**files, **scripts}))
        ways = _ways()
        if beside_litellm:
            url = enter(litellm.running(f"http://{_SERVER}"))
            ways["LiteLLM"] = Asked(url + backend.WHOLE, f"{litellm.FOLDER}/whole.lua")
        yield ways


def _ways() -> dict[str, Asked]:
    def way(port: int, path: str, name: str) -> Asked:
        scripts = proxies.folder_of(MANY if port == MANY else FEW)
        return Asked(f"http://127.0.0.1:{port}{path}", f"{scripts}/{name}", proxies.folder_of(port))

    whole, streamed = (backend.WHOLE, "whole.lua"), (backend.STREAMED, "streamed.lua")
    return {
        "bare": way(BARE, *whole),
        "kept": way(KEPT, *whole),
        "gateway": way(FEW, *whole),
        "many": way(MANY, *whole),
        "bare, streamed": way(BARE, *streamed),
        "gateway, streamed": way(FEW, *streamed),
    }


def measure(ways: Mapping[str, Asked], rounds: int) -> list[Row]:
    """Alternate between them: each is the first and the last one as often as the others."""
    names = list(ways)
    for number in range(rounds):
        for place in range(len(names)):
            ways[names[(number + place) % len(names)]].round()
    return _rows(ways)


def _rows(ways: Mapping[str, Asked]) -> list[Row]:
    bare, kept = ways["bare"], ways["kept"]
    ours, many = ways["gateway"], ways["many"]
    streamed = ratios(ways["gateway, streamed"].rates, ways["bare, streamed"].rates)
    rows = [
        at_least("throughput of a bare proxy_pass", 0.80, ratios(ours.rates, bare.rates)),
        told("... of one with kept connections", ratios(ours.rates, kept.rates)),
        told("... streamed, of a bare proxy_pass", streamed),
        told("throughput, 500 keys / 5 keys", ratios(many.rates, ours.rates)),
        told("processor time of a request: gateway", ours.cost, " us"),
        told("... a bare proxy_pass", bare.cost, " us"),
        told("... a bare proxy_pass with kept connections", kept.cost, " us"),
        told("requests a second: gateway", ours.rates),
        told("... a bare proxy_pass", bare.rates),
    ]
    if theirs := ways.get("LiteLLM"):
        rows += [
            told("... LiteLLM's proxy", theirs.rates),
            told("throughput, gateway / LiteLLM's proxy", ratios(ours.rates, theirs.rates)),
        ]
    return rows


def key(port: int = FEW) -> str:
    """The key of the gateway at `port` that may do what is measured."""
    text = Path(proxies.folder_of(port), "whole.lua").read_text()
    return text.partition("Bearer ")[2].partition('"')[0]
