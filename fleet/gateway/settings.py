"""Settings of the gateway and of its keys."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetPydanticSchema,
    model_validator,
)
from pydantic_core.core_schema import no_info_after_validator_function, str_schema

from fleet.declare.settings import FROM_NAME, Item, Settings
from fleet.declare.types import (
    DnsName,
    EmailAddress,
    HttpUrl,
    KeyName,
    Network,
    Origin,
    Port,
    PositiveDuration,
    ProjectFile,
    Words,
    not_empty,
)
from fleet.gateway.backend import Backend
from fleet.ollama.models import ModelName

GatewayListen = Literal["loopback", "private", "any"]
GatewayTls = Literal["private-ca", "given", "acme", "off"]
MetricsListen = Literal["off", "loopback", "private"]
Roll = Literal["in-turn", "at-once"]
Role = Literal["inference", "admin"]
Overrides = Literal["refuse", "ignore", "allow"]
# What an amount of tokens is per.
Window = Literal["h", "d", "mo"]
_SCALES = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


@dataclass(frozen=True)
class Rate:
    """So many `requests` a second (`s`) or a minute (`m`)."""

    requests: int
    unit: Literal["s", "m"]

    def __str__(self) -> str:
        """`120/m`, as it is declared."""
        return f"{self.requests}/{self.unit}"

    @property
    def a_second(self) -> float:
        """Requests a second."""
        return self.requests / (60 if self.unit == "m" else 1)


def _read_rate(value: str) -> Rate:
    match = re.fullmatch(r"([0-9]+)/([sm])", value)
    if not match or not 1 <= int(match[1]) <= 100_000:
        raise ValueError("not a rate: write requests a second or a minute, as in 5/s or 120/m")
    return Rate(int(match[1]), "s" if match[2] == "s" else "m")


@dataclass(frozen=True)
class Tokens:
    """So many tokens, of prompts and answers, an hour (`h`), a day (`d`) or a month (`mo`), UTC."""

    amount: int
    window: Window
    text: str

    def __str__(self) -> str:
        """`2M/d`, as it is declared."""
        return self.text


def _read_tokens(value: str) -> Tokens:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([kMG]?)/(h|d|mo)", value)
    amount = round(float(match[1]) * _SCALES[match[2]]) if match else 0
    if not match or not 1 <= amount <= 10**15:
        raise ValueError(
            "not an amount of tokens: write tokens an hour, a day or a month, as in 500k/h, 2M/d "
            "or 1.5G/mo"
        )
    window: Window = "h" if match[3] == "h" else "d" if match[3] == "d" else "mo"
    return Tokens(amount, window, value)


def _check_expiry(value: Any) -> datetime:
    """The moment from which a key is refused; a mere day is still valid to its end, in UTC."""
    if isinstance(value, str):
        day_only = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value)
        try:
            value = date.fromisoformat(value) if day_only else datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC) + timedelta(days=1)
    if not isinstance(value, datetime):
        raise ValueError("not a date: write 2027-06-30 or 2027-06-30T18:00:00+02:00")
    if value.tzinfo is None:
        raise ValueError("a time without its zone: add one, as in 2027-06-30T18:00:00+02:00")
    return value.astimezone(UTC)


RateDeclared = Annotated[
    Rate,
    # Text is declared, and refused as text where it is none.
    GetPydanticSchema(lambda *_: no_info_after_validator_function(_read_rate, str_schema())),
    Words("rate"),
]
TokensDeclared = Annotated[
    Tokens,
    GetPydanticSchema(lambda *_: no_info_after_validator_function(_read_tokens, str_schema())),
    Words("amount of tokens"),
]
Expiry = Annotated[datetime, BeforeValidator(_check_expiry), Words("date or time")]


class GatewayKey(Item):
    """An API key as it is declared: who may do what, from where, how often and until when."""

    heading = "A key"
    introduction = (
        'A name alone, `"team-a"`, or what is to hold for it: '
        '`{"name": "ci", "rate": "120/m", "concurrent": 4, "expires": "2027-06-30"}`.'
    )
    words = Words("key")

    name: KeyName = Field(description="Name of the key: in logs, metrics and the secrets store.")
    role: Role = Field(
        "inference",
        description=(
            "What it may: `inference` reaches chat, completions, embeddings and the list of "
            "models; `admin` also pull, create, show, ps and delete, below `/hosts/<name>/`."
        ),
        json_schema_extra={"exposes": "An `admin` key can delete and replace models."},
    )
    rate: RateDeclared | None = Field(
        None, description="Requests a second or a minute, as in `5/s` or `120/m`; unset: unlimited."
    )
    burst: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Requests let through at once above the rate; unset: a second's worth.",
    )
    concurrent: int = Field(
        64,
        ge=1,
        le=65535,
        description=(
            "Requests in flight at once, of all who share the key; one more is answered 429."
        ),
    )
    expires: Expiry | None = Field(
        None,
        description=(
            "Refused from then on: a day (to its end, UTC), or a time with its zone. Checked at "
            "each request, no deploy is needed."
        ),
    )
    allow_from: tuple[Network, ...] = Field(
        (), strict=False, description="Source networks the key works from; empty: all of them."
    )
    models: tuple[ModelName, ...] = Field(
        (),
        strict=False,
        description=(
            "Models that it may use, by the names that clients write, aliases too; empty: all."
        ),
    )
    tokens: TokensDeclared | None = Field(
        None,
        description=(
            "Tokens, of prompts and answers, an hour, a day or a month (UTC), as in `500k/h`, "
            "`2M/d` or `1.5G/mo`, at each gateway for itself; unset: unlimited. What is being "
            "answered counts at its end."
        ),
    )
    overrides: Overrides | None = Field(
        None,
        description=(
            "What becomes of fields that act on everybody: `keep_alive`, `shift`, the options that "
            "reload a model (`num_ctx` and its like), `template`. `ignore` drops them, and names "
            "them in the header X-Ignored-Fields; `refuse` answers 400; `allow` lets them pass. "
            "Unset: `ignore`, and `allow` for `admin` keys."
        ),
        json_schema_extra={
            "exposes": (
                "`allow` lets this client unload or reload all models, and fill a host's memory."
            )
        },
    )

    @model_validator(mode="after")
    def _relations(self) -> GatewayKey:
        if self.burst is not None and self.rate is None:
            raise ValueError(f"{self.name}: burst without a rate limits nothing; add rate")
        return self

    def has_ended(self, now: datetime) -> bool:
        """Whether it is refused at `now`."""
        return self.expires is not None and self.expires <= now

    @property
    def way(self) -> Overrides:
        """What becomes of fields that act on everybody."""
        return self.overrides or ("allow" if self.role == "admin" else "ignore")


GatewayKeyDeclared = Annotated[GatewayKey, FROM_NAME, Words("key name or key", "key names or keys")]


class Gateway(Settings):
    """The nginx gateway of a host."""

    prefix = "gateway_"

    listen: GatewayListen = Field(
        "private",
        description="Where the gateway is: `loopback`, `private` (`private_address`) or `any`.",
        json_schema_extra={"exposes": "`any` listens on every address, public ones too."},
    )
    port: Port = Field(8434, description="Port of the gateway.")
    keys: tuple[GatewayKeyDeclared, ...] = Field(
        (),
        strict=False,
        description=(
            "API keys that are let in, one a client: a name, or a name and its limits as below. "
            "Values are in the secrets store as `gateway_key_<name>`, generated when missing."
        ),
    )
    aliases: Mapping[ModelName, ModelName] = Field(
        {},
        description=(
            "Other names for models, as clients may write them: "
            '`{"gpt-4o": "gpt-oss:120b"}`; each to a declared model.'
        ),
    )
    fallbacks: Mapping[ModelName, ModelName] = Field(
        {},
        description=(
            "What answers in a model's place while no host that has it can: "
            '`{"gpt-oss:120b": "gpt-oss:20b"}`.'
        ),
    )
    backends: tuple[Backend, ...] = Field(
        (),
        strict=False,
        description=(
            "Servers that are not ours, by their address: requests for their models go there too. "
            "All gateways of a fleet have the same ones."
        ),
        json_schema_extra={"exposes": "Prompts and answers leave the fleet for whoever runs them."},
    )
    names: tuple[DnsName, ...] = Field(
        (),
        strict=False,
        description=(
            "DNS names by which clients know the gateway: the first is in its URL, and the "
            "certificate of `private-ca` or `acme` is for all of them."
        ),
    )
    tls: GatewayTls = Field(
        "private-ca",
        description=(
            "Where the certificate is from: `private-ca` is an authority of this fleet's own "
            "(`fleet ca` prints what clients must trust), `given` is `gateway_tls_certificate`, "
            "`acme` has certbot fetch and renew one, `off` is plain HTTP."
        ),
        json_schema_extra={
            "exposes": "`off` sends keys, prompts and answers over the network in plain text."
        },
    )
    tls_certificate: ProjectFile | None = Field(
        None,
        description=(
            "For `given`: PEM file with the certificate and its chain, relative to the project. "
            "Its key is the secret `gateway_tls_key` of the secrets store."
        ),
    )
    acme_directory: HttpUrl = Field(
        "https://acme-v02.api.letsencrypt.org/directory",
        description="For `acme`: the authority's directory. By default Let's Encrypt.",
    )
    acme_email: EmailAddress | None = Field(
        None, description="For `acme`: the address that the authority may write to."
    )
    http_port: Port | None = Field(
        None,
        description=(
            "Port on which plain HTTP is answered by a redirect to the gateway, and nothing "
            "else; `acme` needs it, as port 80, to prove the names."
        ),
        json_schema_extra={
            "exposes": "A client that calls it with a key has sent the key in plain text."
        },
    )
    cors_origins: tuple[Origin, ...] = Field(
        (),
        strict=False,
        description="Browser origins whose pages may call the gateway, such as a web chat's.",
        json_schema_extra={
            "exposes": "Scripts of these pages can read answers, for whoever gives them a key."
        },
    )
    metrics: MetricsListen = Field(
        "loopback",
        description=(
            "Where Prometheus finds the gateway's exporters: `loopback`, `private` "
            "(`private_address`, opened to `gateway_metrics_from`), or `off` for none."
        ),
        json_schema_extra={
            "exposes": "`private` shows key names and request counts to the declared networks."
        },
    )
    metrics_port: Port = Field(9145, description="Port of the requests' metrics, by key name.")
    metrics_nginx_port: Port = Field(9113, description="Port of nginx's own exporter.")
    metrics_node_port: Port = Field(9100, description="Port of the host's exporter.")
    metrics_from: tuple[Network, ...] = Field(
        (), strict=False, description="Source networks that the firewall lets read the metrics."
    )
    allow_from: Annotated[tuple[Network, ...], AfterValidator(not_empty)] = Field(
        (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")),
        strict=False,
        description="Source networks that the firewall lets reach the gateway.",
    )
    connections: Annotated[int, Field(ge=8, le=60_000)] | None = Field(
        512,
        description=(
            "How many connections an address may have with the gateway at once (of IPv6, a network "
            "of 64 bits), half-open ones too; `None` for any number. The fleet's own hosts are not "
            "limited."
        ),
    )
    connections_free: tuple[Network, ...] = Field(
        (),
        strict=False,
        description=(
            "Source networks that `gateway_connections` does not limit, such as the one address "
            "that a whole office calls from."
        ),
    )
    refusals: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        60,
        description=(
            "How many requests without a valid key an address may send a minute: more are "
            "answered with 429 and are not logged, while valid keys are served as ever; `None` "
            "for any number."
        ),
    )
    read_timeout: PositiveDuration = Field(
        "15m",
        description=(
            "How long a backend may send nothing: a cold load of a large model must fit in it."
        ),
    )
    roll: Roll = Field(
        "in-turn",
        description=(
            "How a deploy restarts GPU hosts that get requests: `in-turn` takes one after the "
            "other out of the gateways, waits for its requests, restarts it, and lets it in again "
            "once it answers a chat; `at-once` restarts all and cuts off whoever is answered. "
            "For one deploy: `--data gateway_roll=at-once`."
        ),
    )
    roll_width: Annotated[int, Field(ge=1, le=1000)] = Field(
        1,
        description=(
            "How many GPU hosts a deploy takes out of the gateways at once; one always stays. Of "
            "several gateways the lowest counts."
        ),
    )
    drain_timeout: PositiveDuration = Field(
        "15m",
        description=(
            "How long a deploy waits for the requests of a GPU host that it is about to restart; "
            "if some still run then, the host is left as it is, and so are those after it."
        ),
    )
    max_body: Annotated[int, Field(ge=1, le=4096)] = Field(
        64,
        description="Largest request body, images included.",
        json_schema_extra={"unit": "MiB"},
    )

    @model_validator(mode="after")
    def _relations(self) -> Gateway:
        names = [key.name for key in self.keys]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"gateway_keys: {', '.join(twice)} is declared more than once")
        backends = [item.name for item in self.backends]
        twice = sorted({name for name in backends if backends.count(name) > 1})
        if twice:
            raise ValueError(f"gateway_backends: {', '.join(twice)} is declared more than once")
        if (self.tls == "given") != (self.tls_certificate is not None):
            raise ValueError(
                "gateway_tls_certificate: belongs to gateway_tls = 'given', which needs it"
            )
        if self.tls == "acme" and not (self.names and self.acme_email and self.http_port == 80):
            raise ValueError(
                "gateway_tls: 'acme' needs gateway_names, gateway_acme_email and "
                f"gateway_http_port = 80, which is {self.http_port}: authorities ask no other port"
            )
        if self.tls == "off" and self.http_port is not None:
            raise ValueError(
                "gateway_http_port: redirects to https, which gateway_tls = 'off' turns off"
            )
        if self.metrics_from and self.metrics != "private":
            raise ValueError(
                f"gateway_metrics_from: with gateway_metrics = {self.metrics!r} nobody else can "
                "reach the metrics; set gateway_metrics = 'private'"
            )
        if self.metrics == "private" and not self.metrics_from:
            raise ValueError(
                "gateway_metrics = 'private' without gateway_metrics_from: nobody could read them; "
                "name at least one network"
            )
        return self

    def usable_keys(self, now: datetime) -> list[GatewayKey]:
        """Keys that are let in from anywhere at `now`; those without other limits first."""
        usable = [key for key in self.keys if not key.has_ended(now) and not key.allow_from]
        return sorted(
            usable,
            key=lambda key: (
                bool(key.models), key.tokens is not None, key.rate is not None, -key.concurrent
            ),
        )  # fmt: skip
