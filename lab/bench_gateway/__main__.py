"""What the gateway costs, and what its choice of servers gains: `make bench-gateway` (root).

On this machine, before a server that does nothing: what a request costs, also with 500 keys, with a
thousand streams, and beside a body of 60 MB; LiteLLM's proxy beside it. On the lab's gateway host,
before its Ollama servers: throughput, and conversations of several turns. What is compared is
asked in turns, so that other work on the machine meets all of it. The exit status is 1 where a goal
is missed.
"""

import json
import sys

import click

from lab import machine, state
from lab.bench_gateway import chat, delay, empty, large, streams
from lab.bench_gateway.goals import HEAD, Row
from lab.bench_gateway.place import HERE, lab_host
from lab.state import EDGE, LabError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=12, show_default=True, type=click.IntRange(1))
@click.option("--litellm/--no-litellm", default=True, help="LiteLLM's proxy beside it.")
@click.option("--here/--no-here", default=True, help="What needs no lab.")
@click.option("--lab/--no-lab", default=True, help="What the lab's hosts are needed for.")
def main(rounds: int, litellm: bool, here: bool, lab: bool) -> None:
    """Measure, and print a table of what was to be reached and what was found."""
    machine.need_root()
    there = _lab() if lab else None
    click.echo(HEAD)
    rows = _empty(rounds, beside_litellm=litellm) if here else []
    if there:
        rows += _before_ollama(*there, rounds)
    missed = [row.what for row in rows if row.held is False]
    if missed:
        click.echo(f"missed: {'; '.join(missed)}")
    sys.exit(bool(missed))


def _say(rows: list[Row]) -> list[Row]:
    for row in rows:
        click.echo(str(row))
    return rows


def _empty(rounds: int, *, beside_litellm: bool) -> list[Row]:
    HERE.install("nginx", "wrk")
    with empty.running(beside_litellm=beside_litellm) as ways:
        rows = _say(empty.measure(ways, rounds))
    with empty.running(beside_litellm=False):
        rows += _say(delay.measure(rounds))
        rows += _say(streams.measure())
        rows += _say(large.measure(max(1, rounds // 4)))
    return rows


def _before_ollama(lab: state.Lab, servers: list[str], rounds: int) -> list[Row]:
    edge = lab_host(lab, EDGE.name)
    edge.install("wrk", "python3")
    with chat.running(edge, lab.address(EDGE.index), servers) as key:
        return _say(chat.measure(edge, key, rounds, max(1, rounds // 4)))


def _lab() -> tuple[state.Lab, list[str]]:
    """The checkout's lab, and address and port of its Ollama servers."""
    lab = state.find(state.default_id())
    if lab is None:
        raise LabError("There is no lab: run `make lab`.")
    known = json.loads(lab.json_path.read_text())["hosts"]
    return lab, [f"{host['address']}:11434" for host in known.values() if "gpu" in host["groups"]]


if __name__ == "__main__":
    main()
