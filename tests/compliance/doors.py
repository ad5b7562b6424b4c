"""Whether clients of this machine come as far as a gateway: its name, its port, its certificate."""

from __future__ import annotations

import socket
import ssl
import warnings

import requests

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.causes import Asked, cause_of_no_door
from fleet.gateway.declared import gateway_keys, gateway_url, trust_of
from fleet.kit.errors import FleetError
from fleet.kit.proxy import ask_directly_if_private, proxy_of

_PATIENCE = 10  # seconds


def why_no_door(fleet: Fleet, gateway: FleetHost, inventory: str) -> str:
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
        return cause_of_no_door(error, Asked(str(url), inventory, proxy_of(str(url))))
    return ""


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
