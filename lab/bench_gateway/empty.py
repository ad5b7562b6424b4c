"""Before a server that does nothing: what a request costs the gateway."""

import resource
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.bench_gateway import backend, litellm, load, proxies, workers
from lab.bench_gateway.goals import Row, at_least, ratios, told
from lab.bench_gateway.place import HERE

BARE, KEPT, FEW, MANY = 19001, 19002, 19003, 19004
_AT_ONCE = 16
_SERVER = f"127.0.0.1:{backend.PORT}"


@dataclass
class Asked:
    """One way to ask: what was found in each round."""

    url: str
    script: str
    folder: str = ""  # of the proxy, where its processor time is to be known
    seconds: int = 1
    rates: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)  # us of the workers a request
    whole: list[float] = field(default_factory=list)  # with those of the server, and wrk

    def warm(self) -> None:
        """Ask for nothing but to have it begun."""
        load.run(HERE, self.url, self.script, _AT_ONCE, 3 * self.seconds)

    def round(self) -> None:
        """Ask as fast as it is answered."""
        before = self._spent()
        many = load.run(HERE, self.url, self.script, _AT_ONCE, self.seconds)
        own, others = (
            (then - now) / many.requests * 1e6
            for now, then in zip(before, self._spent(), strict=True)
        )
        self.cost.append(own)
        self.whole.append(own + others)
        self.rates.append(many.rate)

    def _spent(self) -> tuple[float, float]:
        """Processor time so far: of the proxy's workers, and of who asks and who answers."""
        wrk = resource.getrusage(resource.RUSAGE_CHILDREN)
        others = wrk.ru_utime + wrk.ru_stime + workers.seconds(proxies.folder_of(backend.PORT))
        return workers.seconds(self.folder) if self.folder else 0.0, others


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
            script = f"{litellm.FOLDER}/whole.lua"
            ways["LiteLLM"] = Asked(url + backend.WHOLE, script, seconds=5)
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
    for way in ways.values():
        way.warm()
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
        told("... by the processor time of all who take part", ratios(bare.whole, ours.whole)),
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
