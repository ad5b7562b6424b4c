"""Conversations before the lab's Ollama servers: what it gains that each stays where it began.

In the same run: the gateway, and a bare nginx that gives each request to the server with the fewest
connections (`least_conn`).
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.bench_gateway import proxies
from lab.bench_gateway.goals import Row, at_most, ratios, told
from lab.bench_gateway.place import Place

_GOAL = 0.6
_TALK = Path(__file__).with_name("talk.py").read_text()


def measure(place: Place, gateway: int, least_conn: int, key: str, rounds: int) -> list[Row]:
    """The ports are those of the two; which of them is first changes from round to round."""
    folder = proxies.folder_of(gateway)
    place.run(f"umask 077; cat > {folder}/talk.py", _TALK)
    found: dict[int, list[list[dict[str, Any]]]] = {gateway: [], least_conn: []}
    for number in range(rounds):
        ports = (gateway, least_conn) if number % 2 == 0 else (least_conn, gateway)
        for port in ports:
            asked = json.dumps({"port": port, "key": key, "model": proxies.MODEL})
            place.run(f"umask 077; cat > {folder}/talk.json", asked)
            said = place.run(f"python3 {folder}/talk.py {folder}/talk.json {port}-{number}")
            found[port].append(json.loads(said))
    ours, theirs = ([_later(run) for run in found[port]] for port in (gateway, least_conn))
    return [
        at_most(
            "time to first token of turns 2 to 6, of least_conn's", _GOAL, ratios(ours, theirs)
        ),
        told("... with the gateway's choice, median", ours, " s"),
        told("... with least_conn", theirs, " s"),
        told(
            "... a server reads such a prompt in (mean), with the gateway's",
            _read(found[gateway]),
            " ms",
        ),
        told("... with least_conn", _read(found[least_conn]), " ms"),
    ]


def _later(run: Sequence[dict[str, Any]]) -> float:
    """The median of all turns but the first, in seconds."""
    return float(statistics.median(turn["first"] for turn in run if turn["turn"] > 1))


def _read(runs: Sequence[Sequence[dict[str, Any]]]) -> list[float]:
    return [statistics.mean(turn["read"] for turn in run if turn["turn"] > 1) for run in runs]
