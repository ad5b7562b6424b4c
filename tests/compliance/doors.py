"""Whether clients of this machine come as far as a gateway: its name, its port, its certificate."""

from __future__ import annotations

import socket
import ssl
import warnings

import requests
from urllib3.exceptions import HTTPError, MaxRetryError, NameResolutionError

from fleet.declare.fleet import Fleet, FleetHost, Url
from fleet.gateway.declared import gateway_keys, gateway_url, trust_of
from fleet.kit.errors import FleetError
from fleet.kit.proxy import ask_directly_if_private, proxy_of

_PATIENCE = 10  # seconds


def why_no_door(fleet: Fleet, gateway: FleetHost) -> str:
    """Why nothing that is sent to `gateway` is answered, in an operator's words; empty if it is.

    A gateway that is open to its own host only has nothing to be reached by, and no reason.
    """
    url = gateway_url(gateway)
    if url is None:
        return ""
    ask_directly_if_private(str(url))
    try:
        gateway_keys(fleet, gateway)
        trust = trust_of(fleet, gateway)
    except FleetError as error:
        # As in a clone to which nobody has brought the store.
        return str(error)
    try:
        requests.get(f"{url}/healthz", verify=trust, timeout=_PATIENCE)
    except requests.RequestException as error:
        proxy = proxy_of(str(url))
        by = f" (asked through the proxy {proxy} of this machine's environment)" if proxy else ""
        return f"{url}: {_why(error, url)}{by}"
    return ""


def _why(error: requests.RequestException, url: Url) -> str:
    cause = _cause(error)
    if isinstance(error, requests.exceptions.SSLError):
        return f"its certificate is not one that clients trust: {cause}"
    if isinstance(cause, NameResolutionError):
        return (
            f"the name {url.endpoint.address} is not known here: publish it in DNS, or name the "
            "gateway by another one first in gateway_names"
        )
    if isinstance(error, requests.Timeout):
        return f"no answer within {_PATIENCE} s"
    return f"no connection: {cause}"


def _cause(error: requests.RequestException) -> BaseException:
    """What was first: requests and urllib3 wrap it, each in an error of its own."""
    inner = error.args[0] if error.args else error
    if isinstance(inner, MaxRetryError) and inner.reason is not None:
        inner = inner.reason
    # Of a name, urllib3's own error tells more than what the resolver says.
    while isinstance(inner, HTTPError) and not isinstance(inner, NameResolutionError):
        if not isinstance(inner.__cause__, OSError):
            break
        inner = inner.__cause__
    return inner if isinstance(inner, BaseException) else error


def handshake_with_tls_1_1(address: tuple[str, int]) -> None:
    """Open a connection by a TLS that nobody should speak any more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(address, 10) as plain, context.wrap_socket(plain):
        pass
