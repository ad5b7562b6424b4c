"""What the owner of an API key is given: address, authority, key, and examples of clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.declared import authority_certificate, gateway_url
from fleet.gateway.offered import offered
from fleet.gateway.settings import Gateway, GatewayKey
from fleet.models.choice import LARGE, SMALL
from fleet.ollama.models import is_auto

CA_FILE = "fleet-ca.pem"

_CURL = """\
export LLM_KEY={key}
curl{ca} {url}/v1/chat/completions \\
    -H "Authorization: Bearer $LLM_KEY" -H "Content-Type: application/json" \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
"""
_OPENAI = """\
import ssl
import openai

client = openai.OpenAI(
    base_url="{url}/v1",
    api_key="{key}",
    http_client=openai.DefaultHttpxClient(verify=ssl.create_default_context({cafile})),
)
answer = client.chat.completions.create(
    model="{model}", messages=[{{"role": "user", "content": "Hello"}}]
)
print(answer.choices[0].message.content)
"""
_OLLAMA = """\
import ssl
import ollama

client = ollama.Client(
    host="{url}",
    headers={{"Authorization": "Bearer {key}"}},
    verify=ssl.create_default_context({cafile}),
)
answer = client.chat(model="{model}", messages=[{{"role": "user", "content": "Hello"}}])
print(answer.message.content)
"""
_DIFY = """\
Plugin "OpenAI-API-compatible", Add Model:
    Model Type       LLM
    Model Name       {model}
    API Key          {key}
    API endpoint URL {url}/v1
"""
_DIFY_CA = """\
Dify's container plugin_daemon has to trust the authority: mount {ca_file} into it, and set
SSL_CERT_FILE there to its path.
"""
_CLI = """\
The command `ollama` sends no key to a server of one's own, so it cannot be used with this address;
take curl or one of the packages above.
"""


@dataclass(frozen=True)
class Handout:
    """One key, as its owner needs it. `authority` is None where clients know it already."""

    url: str
    declared: GatewayKey
    key: SecretStr
    models: tuple[str, ...]
    authority: str | None

    @property
    def model(self) -> str:
        """The one that the examples ask."""
        return self.models[0]

    @property
    def snippets(self) -> dict[str, str]:
        """Client to what its user copies; what is a program runs as it is, beside `CA_FILE`."""
        values = {
            "url": self.url,
            "key": self.key.get_secret_value(),
            "model": self.model,
            "ca": f" --cacert {CA_FILE}" if self.authority else "",
            "cafile": f'cafile="{CA_FILE}"' if self.authority else "",
            "ca_file": CA_FILE,
        }
        dify = _DIFY + (_DIFY_CA if self.authority else "")
        texts = {
            "curl": _CURL, "python_openai": _OPENAI, "python_ollama": _OLLAMA, "dify": dify,
            "ollama_cli": _CLI,
        }  # fmt: skip
        return {name: text.format(**values) for name, text in texts.items()}

    def as_object(self) -> dict[str, Any]:
        """It for programs; the key is in it."""
        return {
            "name": self.declared.name,
            "url": self.url,
            "key": self.key.get_secret_value(),
            "models": list(self.models),
            "authority": self.authority,
            "limits": list(_limits(self.declared)),
            "snippets": self.snippets,
        }


def handout_of(fleet: Fleet, gateway: FleetHost, declared: GatewayKey, key: SecretStr) -> Handout:
    """What the owner of the key `declared` of a gateway that has a URL is given."""
    models = offered(fleet, gateway[Gateway], declared)
    private = gateway[Gateway].tls == "private-ca"
    authority = authority_certificate(fleet) if private else None
    url = str(gateway_url(gateway))
    return Handout(url, declared, key, models, authority)


_TITLES = {
    "curl": "curl",
    "python_openai": "Python, package openai",
    "python_ollama": "Python, package ollama",
    "dify": "Dify",
    "ollama_cli": "Ollama's command line",
}


def text_of(handout: Handout) -> str:
    """All of it as one text, to be handed over as it is."""
    return "\n".join(_lines(handout)) + "\n"


def _lines(handout: Handout) -> Iterator[str]:
    yield f"Access to language models: the key {handout.declared.name!r}"
    yield ""
    yield f"URL       {handout.url} ({handout.url}/v1 for clients of OpenAI's API)"
    yield f"Key       {handout.key.get_secret_value()}"
    yield "          Whoever has it can use the models: keep it as a password."
    yield f"Models    {', '.join(handout.models)}"
    if any(map(is_auto, handout.models)):
        yield f"          auto is {SMALL} or {LARGE}, whichever the host has that answers"
    for limit in _limits(handout.declared):
        yield f"Limit     {limit}"
    if handout.authority:
        yield f"Authority save the certificate at the end of this text as {CA_FILE}"
    elif handout.url.startswith("http:"):
        yield "Authority none: nothing is encrypted on the way"
    for name, text in handout.snippets.items():
        yield ""
        yield f"== {_TITLES[name]}"
        yield ""
        yield text.rstrip("\n")
    if handout.authority:
        yield ""
        yield f"== {CA_FILE}"
        yield ""
        yield handout.authority.rstrip("\n")


def _limits(key: GatewayKey) -> Iterator[str]:
    if key.expires:
        yield f"until {key.expires:%Y-%m-%d %H:%M %Z}".rstrip()
    if key.rate:
        yield f"{key.rate} requests, with bursts above that; more are answered 429"
    yield f"{key.concurrent} requests at the same time"
    if key.allow_from:
        yield f"from {', '.join(map(str, key.allow_from))} only"
    if key.tokens:
        yield f"{key.tokens} tokens; more are answered 429"
    if key.models:
        yield f"models {', '.join(key.models)} only"
    if key.way == "ignore":
        yield "keep_alive, num_ctx and the like are dropped: see the header X-Ignored-Fields"
    elif key.way == "refuse":
        yield "no keep_alive, num_ctx and the like: they are answered 400"
