"""Why a gateway gave no answer, in a sentence with the fix; told by types, never by words."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import openai

from fleet.gateway.offered import plain_of

# OpenSSL's X509_V_ERR_* (x509_vfy.h).
_NOT_YET, _ENDED = 9, 10
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)
_NOT_PERMITTED, _OTHER_NAME, _OTHER_ADDRESS = 47, 62, 64
_PROBE = 3  # seconds until a host that accepts no connection is told from one that says nothing


@dataclass(frozen=True)
class Asked:
    """What was asked, and how: `proxy` is this machine's.

    `declared` are the names of models, aliases too, and `offered` those that the key may use.
    Without a model, by nobody's key: whether there is a gateway.
    """

    url: str
    inventory: str
    proxy: str | None = None
    key: str = ""
    model: str = ""
    declared: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The host in the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port in the URL, which always has one."""
        return urlsplit(self.url).port or 0


def cause_of(error: openai.OpenAIError, asked: Asked) -> str:
    """What was in the way, and what to do about it."""
    if isinstance(error, openai.APIStatusError):
        text = _of_status(error, asked)
    elif isinstance(error, openai.APIConnectionError):
        text = _of_connection(error, asked)
    else:
        text = f"its answer was not understood ({error}); is that the gateway?"
    return _told(text, asked)


def cause_of_no_door(error: Exception, asked: Asked) -> str:
    """The same of a connection that did not come about; `error` is of any library's client."""
    return _told(_of_connection(error, asked), asked)


def _told(text: str, asked: Asked) -> str:
    by = (
        f" Asked through the proxy {asked.proxy} of this machine's environment."
        if asked.proxy
        else ""
    )
    return f"{asked.url}: {text}{by}"


def _of_status(error: openai.APIStatusError, asked: Asked) -> str:
    status = error.status_code
    if status == 404:
        return _of_missing_model(asked)
    texts = {
        401: (
            f"the gateway does not know this value of the key {asked.key!r} (401): the secrets "
            f"store here has another than the one that was deployed; deploy {asked.inventory}, or "
            "bring the store here from the machine that deployed last"
        ),
        403: (
            f"the key {asked.key!r} may not do this, or not from this machine (403): see its "
            "`allow_from` and `role` in gateway_keys"
        ),
        429: (
            f"more requests than the key {asked.key!r} may send (429): wait, or raise its `rate` "
            "or `concurrent` in gateway_keys"
        ),
        502: (
            "the gateway answers, and no GPU host behind it does (502): `fleet status "
            f"{asked.inventory}` says which and why"
        ),
        503: (
            f"the gateway answers, and no GPU host that is to have {asked.model} takes a request "
            "just now (503): they are down, drained, not ready, full, or do not have it yet; "
            f"`fleet status {asked.inventory}` says which"
        ),
        504: (
            "the model began no answer in time (504): it may still be loading; `fleet status "
            f"{asked.inventory}` shows it, gateway_read_timeout is the limit"
        ),
    }  # fmt: skip
    if status == 407:
        return "the proxy wants a login (407): put name and password into the proxy's URL"
    return texts.get(status, f"it answered {status}: {error.message}")


def _of_missing_model(asked: Asked) -> str:
    wanted = plain_of(asked.model)
    if wanted not in map(plain_of, asked.declared):
        return (
            f"no host has the model {asked.model} (404), and it is not declared; declared are "
            f"{', '.join(asked.declared)}"
        )
    if wanted not in map(plain_of, asked.offered):
        return (
            f"the key {asked.key!r} may not use the model {asked.model} (404): it may use "
            f"{', '.join(asked.offered)}; add it to the key's `models` in gateway_keys"
        )
    return (
        f"the gateway does not know the model {asked.model}, which is declared (404): deploy "
        f"{asked.inventory}"
    )


def _of_connection(error: Exception, asked: Asked) -> str:
    # The innermost: a client's own errors may be some of the system's, too.
    found = next((item for item in reversed([*_chain(error)]) if isinstance(item, OSError)), None)
    if isinstance(found, ssl.SSLCertVerificationError):
        return _of_certificate(found, asked)
    if isinstance(found, TimeoutError) or isinstance(error, openai.APITimeoutError):
        return _of_silence(asked)
    if found is not None:
        return _of_network(found, f"the proxy {asked.proxy}" if asked.proxy else asked.name, asked)
    if asked.proxy:
        return (
            f"the proxy does not lead there ({_last(error)}): name {asked.name} in NO_PROXY to ask "
            "it directly"
        )
    return f"what answers there is no gateway, or hung up ({_last(error)}); see `fleet status`"


def _of_network(error: OSError, where: str, asked: Asked) -> str:
    if isinstance(error, ssl.SSLError):
        return (
            f"{where} does not speak TLS there ({error.reason}): another program may have the "
            "port, or the host runs with another gateway_tls than is declared; deploy, or see "
            f"`fleet status {asked.inventory}`"
        )
    if isinstance(error, socket.gaierror):
        return _of_name(error, where)
    if isinstance(error, ConnectionRefusedError):
        return (
            f"{where} refuses the connection: nothing listens there; for the gateway see "
            f"`fleet status {asked.inventory}`, which tells whether nginx runs"
        )
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return f"there is no way from this machine to {where}: check its network, VPN or route"
    return (
        f"the connection to {where} was cut ({error}): a host that went down, or more than "
        "gateway_connections from this address"
    )


def _of_certificate(error: ssl.SSLCertVerificationError, asked: Asked) -> str:
    code = error.verify_code
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        return (
            f"its certificate is not for {asked.name}: add that to gateway_names and deploy, or "
            "ask by a name that is in it"
        )
    if code == _ENDED:
        return "its certificate has ended: deploy, which renews it; a given one is yours to replace"
    if code == _NOT_YET:
        return "its certificate is of the future: this machine's clock, or the host's, is wrong"
    if code in _UNKNOWN_AUTHORITY:
        return (
            "its certificate is of an authority that is not trusted here: with gateway_tls = "
            "'private-ca' the secrets store here is another than the one that was deployed; with "
            "'acme' or 'given' the authority has to be among this machine's own, or something in "
            "between answers instead of the gateway"
        )
    if code == _NOT_PERMITTED:
        return (
            f"the fleet's authority may not speak for {asked.name}: deploy, and have clients trust "
            "what `fleet ca` prints then"
        )
    return f"its certificate is refused: {error.verify_message}"


def _of_name(error: socket.gaierror, where: str) -> str:
    if error.errno == socket.EAI_AGAIN:
        return f"no DNS server answers whether {where} exists: check this machine's resolver"
    return (
        f"{where} has no address: DNS does not know it on this machine; add a record for it (for "
        "the gateway, of each of gateway_names), or a line in /etc/hosts"
    )


def _of_silence(asked: Asked) -> str:
    if asked.proxy:
        return "no answer in time: the proxy or what is behind it is silent"
    try:
        socket.create_connection((asked.name, asked.port), _PROBE).close()
    except OSError:
        return (
            f"no answer to the connection (timeout): the host is down, or a firewall drops what "
            "comes from this machine; see gateway_allow_from, and `fleet status "
            f"{asked.inventory}`"
        )
    return (
        "it takes connections and does not answer in time: the model may be loading, or the host "
        f"is busy; see `fleet status {asked.inventory}`"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came of, the innermost last."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _last(error: BaseException) -> str:
    innermost = list(_chain(error))[-1]
    return str(innermost) or type(innermost).__name__
