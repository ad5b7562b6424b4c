"""`fleet`: what an operator asks of an inventory besides deploying and verifying it."""

from __future__ import annotations

import time
from pathlib import Path

import click
import openai

from fleet.errors import FleetError
from fleet.inventory import Fleet, FleetHost
from fleet.load import open_inventory


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Use and inspect a fleet that `pyinfra INVENTORY deploy.py` made."""


@main.command()
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--model", help="Model to ask; by default the first that is declared.")
@click.option("--max-tokens", type=int, default=256, show_default=True, help="Longest answer.")
def chat(inventory: Path, question: str, model: str | None, max_tokens: int) -> None:
    """Ask QUESTION through the front door, as a client with a key does."""
    fleet = _open(inventory)
    gateway = _gateway(fleet)
    name, key = next(iter(fleet.gateway_keys(gateway).items()))
    model = model or fleet.gpu_hosts[0].ollama.model_names[0]
    click.secho(f"{model} at {gateway.gateway_url} with the key {name!r}: {question}", dim=True)
    client = openai.OpenAI(base_url=f"{gateway.gateway_url}/v1", api_key=key.get_secret_value())
    began = time.monotonic()
    first = None
    try:
        for part in client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=max_tokens,
            # The same question has the same answer, so an odd one means something.
            temperature=0,
            stream=True,
        ):
            first = first or time.monotonic() - began
            click.echo(part.choices[0].delta.content or "", nl=False)
    except openai.OpenAIError as error:
        raise click.ClickException(f"{gateway.gateway_url}: {error}") from None
    click.echo()
    click.secho(f"first token after {(first or 0) * 1000:.0f} ms", dim=True)


@main.command()
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("name")
def key(inventory: Path, name: str) -> None:
    """Print the API key NAME, to be handed to its owner."""
    fleet = _open(inventory)
    for gateway in fleet.gateways:
        keys = fleet.gateway_keys(gateway)
        if name in keys:
            click.echo(keys[name].get_secret_value())
            return
    known = sorted({name for gateway in fleet.gateways for name in gateway.gateway.keys})
    raise click.ClickException(f"{name}: not in gateway_keys; declared: {', '.join(known)}")


def _open(inventory: Path) -> Fleet:
    try:
        return open_inventory(inventory)[1]
    except FleetError as error:
        raise click.ClickException(str(error)) from None


def _gateway(fleet: Fleet) -> FleetHost:
    for gateway in fleet.gateways:
        if gateway.gateway_url:
            return gateway
    raise click.ClickException("no gateway of this inventory can be reached from this machine")
