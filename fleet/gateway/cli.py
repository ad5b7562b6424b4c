"""What an operator asks of a gateway: a chat, its keys, its certificate, and a drain."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.open import open_asked, open_fleet
from fleet.gateway.backends import backends_of
from fleet.gateway.declared import (
    authority_certificate,
    context_of,
    gateway_key,
    gateway_url,
    previous_gateway_key,
)
from fleet.gateway.drain import every_gateway, warm
from fleet.gateway.front import Change, Front, no_other_host
from fleet.gateway.handout import handout_of, text_of
from fleet.gateway.offered import declared_names, may_use, offered
from fleet.gateway.settings import Gateway, GatewayKey
from fleet.kit.durations import seconds
from fleet.kit.errors import FleetError
from fleet.kit.proxy import ask_directly_if_private, proxy_of


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--model", help="Model to ask, or an alias; by default the first that is declared.")
@click.option("--max-tokens", type=int, default=256, show_default=True, help="Longest answer.")
def chat(inventory: Path, question: str, model: str | None, max_tokens: int) -> None:
    """Ask QUESTION through the gateway, as a client with a key does."""
    # Heavy, and each deploy loads the list of commands.
    import openai  # noqa: PLC0415

    from fleet.gateway.causes import Asked, cause_of  # noqa: PLC0415

    fleet = open_fleet(inventory)
    gateway = _gateway(fleet)
    declared = _usable_key(gateway, model)
    name, names = declared.name, offered(fleet, gateway[Gateway], declared)
    key = gateway_key(fleet, name)
    model = model or names[0]
    click.secho(f"{model} at {gateway_url(gateway)} with the key {name!r}: {question}", dim=True)
    url = str(gateway_url(gateway))
    ask_directly_if_private(url)
    client = openai.OpenAI(
        base_url=f"{url}/v1",
        api_key=key.get_secret_value(),
        http_client=openai.DefaultHttpxClient(verify=context_of(fleet, gateway)),
    )
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
        every = (*declared_names(fleet), *gateway[Gateway].aliases)
        asked = Asked(url, str(inventory), proxy_of(url), name, model, every, names)
        raise click.ClickException(cause_of(error, asked)) from None
    click.echo()
    click.secho(f"first token after {(first or 0) * 1000:.0f} ms", dim=True)


@click.group()
def key() -> None:
    """The API keys of the gateway: list, show, rotate."""


@key.command("list")
@click.argument("inventory", type=click.Path(path_type=Path))
def key_list(inventory: Path) -> None:
    """List the keys with their roles and ends, without a value."""
    fleet = open_fleet(inventory)
    for gateway in fleet.running(Gateway):
        for item in gateway[Gateway].keys:
            notes: list[str] = [item.role]
            if item.expires:
                word = "expired" if item.has_ended(datetime.now(UTC)) else "until"
                notes.append(f"{word} {item.expires:%Y-%m-%d %H:%M} UTC")
            before = previous_gateway_key(fleet, item.name)
            if before is not None and before.until > datetime.now(UTC):
                notes.append(f"rotated, the value before until {before.until:%Y-%m-%d %H:%M} UTC")
            click.echo(f"{gateway.name}  {item.name:<24} {', '.join(notes)}")


@key.command("show")
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("name")
def key_show(inventory: Path, name: str) -> None:
    """Print the API key NAME, to be handed to its owner."""
    fleet = open_fleet(inventory)
    _gateway_with(fleet, name)
    click.echo(gateway_key(fleet, name).get_secret_value())


@key.command("handout", short_help="Print what the owner of the API key NAME needs.")
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, the key in it.")
def key_handout(inventory: Path, name: str, as_json: bool) -> None:
    """Print what the owner of the API key NAME needs, as one text.

    URL, key, limits, models, the authority to trust, and examples for curl, Python and Dify. The
    key is in it: send it as you would send a password.

    \b
    Example:
      fleet key handout inventory/prod.py research > research.txt
    """
    fleet = open_fleet(inventory)
    gateway = _gateway_with(fleet, name, lambda host: gateway_url(host) is not None)
    declared = next(item for item in gateway[Gateway].keys if item.name == name)
    if declared.has_ended(datetime.now(UTC)):
        raise click.ClickException(
            f"the key {name!r} has ended: give it a later `expires` in gateway_keys, and deploy"
        )
    handout = handout_of(fleet, gateway, declared, gateway_key(fleet, name))
    if as_json:
        click.echo(json.dumps({"schema": "fleet-key-handout/1", **handout.as_object()}, indent=2))
    else:
        click.echo(text_of(handout), nl=False)


@key.command("rotate", short_help="Give the API key NAME a new value.")
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("name")
@click.option(
    "--overlap", default="7d", show_default=True, help="How long the present value stays valid."
)
def key_rotate(inventory: Path, name: str, overlap: str) -> None:
    """Give the API key NAME a new value and print it; the next deploy lets it in.

    The present value stays valid for the overlap: gateways end it by themselves then.
    """
    fleet = open_fleet(inventory)
    _gateway_with(fleet, name)
    try:
        until = datetime.now(UTC) + _overlap(overlap)
        value = fleet.secrets.rotate(f"gateway_key_{name}", until)
    except (FleetError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(value.get_secret_value())
    click.echo(
        f"The value before is valid until {until:%Y-%m-%d %H:%M:%S} UTC. Now run: "
        f"pyinfra {inventory} deploy.py",
        err=True,
    )


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path))
def ca(inventory: Path) -> None:
    """Print the certificate of the fleet's own authority, for clients to trust."""
    fleet = open_fleet(inventory)
    if not any(gateway[Gateway].tls == "private-ca" for gateway in fleet.running(Gateway)):
        raise click.ClickException("no gateway of this inventory has gateway_tls = 'private-ca'")
    click.echo(authority_certificate(fleet), nl=False)
    click.echo(
        "Save it as fleet-ca.pem. Python clients: SSL_CERT_FILE=fleet-ca.pem; curl: --cacert "
        "fleet-ca.pem; a whole Debian host: /usr/local/share/ca-certificates/fleet-ca.crt, then "
        "update-ca-certificates.",
        err=True,
    )


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("host")
@click.option("--timeout", default="15m", show_default=True, help="Longest wait for its requests.")
@click.option("--force", is_flag=True, help="Even if no other host would be left.")
def drain(inventory: Path, host: str, timeout: str, force: bool) -> None:
    """Send HOST no more requests, and wait until those in flight have ended. HOST may be a backend.

    It stays drained, through deploys and restarts, until `fleet undrain`. Only the gateways are
    connected to, all of them.
    """
    try:
        state, fleet = open_asked(inventory)
        gpu, longest = _gpu_host(fleet, host), seconds(timeout)
        with every_gateway(state, fleet) as front:
            if not force and (lonely := front.without_another(gpu)):
                raise FleetError(f"{host}: {no_other_host(lonely)}; --force if meant")
            front.change(Change(gpu, drained=True))
            _wait(front, gpu, longest)
    except (FleetError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{host} is drained: it has no request and gets none")


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("host")
@click.option("--cold", is_flag=True, help="Do not ask HOST for a chat before.")
def undrain(inventory: Path, host: str, cold: bool) -> None:
    """Send HOST requests again, once it answers a chat with its first model.

    The gateways are connected to, and HOST itself for the chat; a backend is asked for none.
    """
    try:
        state, fleet = open_asked(inventory)
        gpu = _gpu_host(fleet, host)
        with every_gateway(state, fleet) as front:
            if not cold and host not in backends_of(fleet):
                warm(state, gpu)
            front.change(Change(gpu, drained=False, served=True))
    except FleetError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{host} gets requests again")


def _wait(front: Front, gpu: FleetHost, longest: float) -> None:
    try:
        front.wait_until_idle(gpu, longest, lambda text: click.echo(text, err=True))
    except FleetError as error:
        raise FleetError(
            f"{error}; it gets no new ones, run the command again to wait on"
        ) from None


def _overlap(text: str) -> timedelta:
    days = text.removesuffix("d")
    if text.endswith("d") and days.isdecimal():
        return timedelta(days=int(days))
    return timedelta(seconds=seconds(text))


def _gpu_host(fleet: Fleet, name: str) -> FleetHost:
    """The host that gets requests, or what stands for a backend's."""
    hosts = {item.host.name: item.host for item in fleet.servers()}
    if name not in hosts:
        raise FleetError(f"{name}: no such GPU host or backend; there are {', '.join(hosts)}")
    return hosts[name]


def _gateway_with(
    fleet: Fleet, name: str, usable: Callable[[FleetHost], bool] = lambda _: True
) -> FleetHost:
    for gateway in fleet.running(Gateway):
        if usable(gateway) and name in [item.name for item in gateway[Gateway].keys]:
            return gateway
    known = sorted(
        {item.name for gateway in fleet.running(Gateway) for item in gateway[Gateway].keys}
    )
    raise click.ClickException(f"{name}: not in gateway_keys; declared: {', '.join(known)}")


def _usable_key(gateway: FleetHost, model: str | None) -> GatewayKey:
    """The first one that may use `model`, if any may, or else the first one."""
    usable = gateway[Gateway].usable_keys(datetime.now(UTC))
    if not usable:
        raise click.ClickException(f"{gateway.name}: every key has expired or is bound to networks")
    may = [item for item in usable if model is None or may_use(gateway[Gateway], item, model)]
    return (may or usable)[0]


def _gateway(fleet: Fleet) -> FleetHost:
    for gateway in fleet.running(Gateway):
        if gateway_url(gateway):
            return gateway
    raise click.ClickException("no gateway of this inventory can be reached from this machine")


COMMANDS = (chat, key, ca, drain, undrain)
