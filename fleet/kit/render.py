"""What is written on hosts: rendered templates, and the programs that run there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fleet.kit.sandbox import sandbox

_ROOMS = Path(__file__).resolve().parents[1]
TEMPLATES = _ROOMS.parent / "templates"


def systemd_assignment(name: str, value: str) -> str:
    """`NAME=value` quoted for a unit's `Environment=`, where `%` would start a specifier."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{name}={escaped}"'


def systemd_word(word: str) -> str:
    """A word of a unit's command line, where `%` and `$` would mean something."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped.replace("%", "%%").replace("$", "$$")}"'


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - configuration files, no HTML
)
_ENVIRONMENT.globals["systemd_assignment"] = systemd_assignment
_ENVIRONMENT.globals["systemd_word"] = systemd_word
_ENVIRONMENT.globals["sandbox"] = lambda **exceptions: "\n".join(sandbox(**exceptions))


def render(template: str, **values: Any) -> str:
    """The text of `templates/<template>`.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    return _ENVIRONMENT.get_template(template).render(values)


def host_program(room: str, name: str) -> str:
    """The text of a shell program that runs on hosts: `fleet/<room>/on_host/<name>`.

    `fleet.kit.host_programs` is for those in Python, which have modules.
    """
    return (_ROOMS / room / "on_host" / name).read_text()
