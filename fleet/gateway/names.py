"""Names of models: `[host/][namespace/]model[:tag]`, and which of them are the same to Ollama.

`gateway_names.lua` is the same on gateways; a test holds the two equal.
"""

from __future__ import annotations

import re

# What Ollama fills in where a name says nothing (its types/model/name.go).
_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_NAME = re.compile(
    r"(?:(?:.*?://)?(?P<host>[\w][\w.:-]{0,349})/(?=.*/))?"
    r"(?:(?P<namespace>[\w][\w-]{0,79})/)?"
    r"(?P<model>[\w][\w.-]{0,79})"
    r"(?::(?P<tag>[\w][\w.-]{0,79}))?",
    re.ASCII | re.DOTALL,
)


def plain(text: str) -> str | None:
    """How the name `text` is written here: in lower case, with its tag, without Ollama's own host
    and namespace. Equal ones are one model. None where it is no name.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    host, namespace, model, tag = found.group("host", "namespace", "model", "tag")
    name = f"{model}:{tag or _TAG}"
    if host and host.lower() != _HOST:
        name = f"{host}/{namespace}/{name}"
    elif namespace and namespace.lower() != _NAMESPACE:
        name = f"{namespace}/{name}"
    return name.lower()
