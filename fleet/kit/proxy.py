"""What a program is told of an HTTP proxy, and what this machine's own programs ask without one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from functools import cache
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


def proxy_environment(proxy: str | None, direct: Iterable[str]) -> dict[str, str]:
    """What a program is told of the proxy for HTTPS, and of what is reached without it."""
    if proxy is None:
        return {}
    return {"HTTPS_PROXY": proxy, "NO_PROXY": ",".join((*LOCAL_HOSTS, *direct))}


def ask_directly_if_private(url: str) -> None:
    """Have every HTTP client of this process ask `url` without a proxy when its host is private.

    A proxy of the machine's environment leads outwards; from there no private address is reached.
    A public host stays with the proxy, and so does a name that only the proxy may know.
    """
    name = urlsplit(url).hostname or ""
    if not _is_private(name):
        return
    for key in ("no_proxy", "NO_PROXY"):  # clients disagree on which of the two counts
        known = [part.strip() for part in os.environ.get(key, "").split(",") if part.strip()]
        if name not in known and known != ["*"]:
            os.environ[key] = ",".join([*known, name])


def proxy_of(url: str) -> str | None:
    """The proxy that this process's HTTP clients ask for `url`; None when they ask it directly."""
    parts = urlsplit(url)
    proxies = getproxies()
    if proxy_bypass(parts.hostname or ""):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


@cache
def _is_private(name: str) -> bool:
    try:
        found = {str(item[4][0]).partition("%")[0] for item in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        return False
    return all(not ip_address(item).is_global for item in found)
