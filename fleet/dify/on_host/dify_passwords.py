"""Passwords that a release prints for everybody, known by their form in its files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from dify_health import Services

# What a variable with a secret is called, and what its name ends in when it only speaks of one.
_NAMED = r"\w*(?:PASS|SECRET|_KEY|TOKEN)\w*"
_NOT_ONE = re.compile(r".*_(?:FILE|FILENAME|PATH|NAME|TYPE|ENABLED|URL|PREFIX|ID|IDS)", re.I)
_NO_VALUE = re.compile(r"[\d.]*|true|false|yes|no|null|none", re.I)
_ASSIGNED = re.compile(
    rf"^[ \t-]*({_NAMED})[ \t]*[=:][ \t]*([^\s#]*)[ \t]*(?:#.*)?$", re.MULTILINE | re.IGNORECASE
)
_DEFAULT = re.compile(rf"\$\{{({_NAMED}):?-([^${{}}]*)\}}", re.I)
# Within another text, an address say, a shorter one could be a word of its own.
_WITHIN = 8


def password_problem(services: Services, directory: Path) -> str | None:
    """The services that would run with a password of the release in `directory`, or None."""
    known = {value for _, value in _printed(directory)}
    found = sorted(
        f"{name}: {variable}"
        for name, service in services.items()
        for variable in _public(service, known)
    )
    if not found:
        return None
    return (
        f"{', '.join(found)}: would be a password that Dify's release prints for everybody: this "
        "project does not know it yet, so this release is not for it"
    )


def _printed(directory: Path) -> Iterator[tuple[str, str]]:
    """Variables with a secret that stand in the release's files, and what stands there."""
    files = [directory / "docker-compose.yaml", directory / ".env.example"]
    for path in [*files, *sorted(directory.glob("envs/**/*.example"))]:
        text = path.read_text()
        for name, raw in [*_ASSIGNED.findall(text), *_DEFAULT.findall(text)]:
            value = raw.strip("'\"")
            if "$" not in value and _is_secret(name) and not _NO_VALUE.fullmatch(value):
                yield name, value


def _is_secret(name: str) -> bool:
    return bool(re.fullmatch(_NAMED, name, re.I)) and not _NOT_ONE.fullmatch(name)


def _public(service: dict[str, object], known: set[str]) -> Iterator[str]:
    """Where a service is told one of the `known`: a variable, or its command."""
    long = [value for value in known if len(value) >= _WITHIN]
    environment = service.get("environment") or {}
    assert isinstance(environment, dict)
    for variable, value in environment.items():
        text = str(value)
        same = _is_secret(variable) and text in known
        if value is not None and (same or any(word in text for word in long)):
            yield variable
    command = json.dumps([service.get("command"), service.get("entrypoint")])
    if any(word in command for word in long):
        yield "its command"
