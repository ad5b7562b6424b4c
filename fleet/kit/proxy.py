"""What a program is told of an HTTP proxy."""

from __future__ import annotations

from collections.abc import Iterable

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")


def proxy_environment(proxy: str | None, direct: Iterable[str]) -> dict[str, str]:
    """What a program is told of the proxy for HTTPS, and of what is reached without it."""
    if proxy is None:
        return {}
    return {"HTTPS_PROXY": proxy, "NO_PROXY": ",".join((*LOCAL_HOSTS, *direct))}
