"""The build backend: setuptools', for an editable installation of the checkout and nothing else.

A wheel would have the Python packages alone. `deploy.py`, `config.py`, `templates/` and
`group_data/` are read from where the project lies, and `tasks` and `lab` are no names for a shared
environment.
"""

from __future__ import annotations

from typing import NoReturn

from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "prepare_metadata_for_build_editable",
]


def build_wheel(*_: object) -> NoReturn:
    """There is none.

    Raises:
        SystemExit: always; what builds it shows the text.
    """
    raise SystemExit(
        "llm-fleet runs from its checkout, and nothing else is built of it: clone the repository "
        "and run `make .venv/installed` there"
    )


build_sdist = build_wheel
