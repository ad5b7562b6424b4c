"""Every template, with the values that its capability's files give it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.meta
import pytest

import fleet.declare.load
from fleet.capabilities import CAPABILITIES
from fleet.kit.render import TEMPLATES, render, systemd_assignment, systemd_word
from fleet.kit.sandbox import sandbox
from tests.fleets import FLEETS, fleet_of
from tests.unit.rendered import make_files

# What is written on hosts; the report is a page for a browser, with an environment of its own.
NAMES = sorted(
    str(path.relative_to(TEMPLATES))
    for path in TEMPLATES.rglob("*.j2")
    if path.parent.name != "report"
)
Values = Mapping[str, Any]


def variables(template: str) -> set[str]:
    """What a template names, but for what every one of them knows."""
    parser = jinja2.Environment()  # noqa: S701 - renders nothing
    parsed = parser.parse((TEMPLATES / template).read_text())
    ours = {item.__name__ for item in (systemd_assignment, systemd_word, sandbox)}
    known = {*parser.globals, *ours}
    return jinja2.meta.find_undeclared_variables(parsed) - known


@pytest.fixture(scope="module")
def renderings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Values]]:
    """Template to the values of each time that it is rendered for a host of the fleets."""
    seen: dict[str, list[Values]] = {}
    as_ever = jinja2.Template.render

    def kept(template: jinja2.Template, values: Values) -> str:
        seen.setdefault(str(template.name), []).append(values)
        return as_ever(template, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fleet.declare.load, "project_of", lambda _: tmp_path_factory.mktemp("project")
        )
        patch.setattr(jinja2.Template, "render", kept)
        for hosts in FLEETS.values():
            for item in CAPABILITIES:
                make_files(item, fleet_of(hosts))
    return seen


class TestTemplates:
    def test_each_is_rendered_for_some_host(self, renderings: dict[str, list[Values]]) -> None:
        assert sorted(renderings) == NAMES

    @pytest.mark.parametrize("template", NAMES)
    def test_says_who_manages_it(self, template: str, renderings: dict[str, list[Values]]) -> None:
        for values in renderings[template]:
            beginning = "\n".join(render(template, **values).splitlines()[:2])
            assert "# Managed by llm-fleet" in beginning

    @pytest.mark.parametrize("template", NAMES)
    def test_is_given_what_it_names(
        self, template: str, renderings: dict[str, list[Values]]
    ) -> None:
        """... all of it, and nothing that would have no effect."""
        for values in renderings[template]:
            assert set(values) == variables(template)

    @pytest.mark.parametrize(
        ("template", "name"), [(item, name) for item in NAMES for name in sorted(variables(item))]
    )
    def test_missing_value_is_an_error(
        self, template: str, name: str, renderings: dict[str, list[Values]]
    ) -> None:
        """... for one of the hosts at least: what another has not may need no such value."""
        assert any(self.is_missed(template, name, values) for values in renderings[template])

    @staticmethod
    def is_missed(template: str, name: str, values: Values) -> bool:
        try:
            render(template, **{key: value for key, value in values.items() if key != name})
        except jinja2.UndefinedError as error:
            return f"'{name}'" in str(error)
        return False

    @pytest.mark.parametrize("template", NAMES)
    def test_ends_with_one_line_break(
        self, template: str, renderings: dict[str, list[Values]]
    ) -> None:
        for values in renderings[template]:
            assert re.search(r"[^\n]\n\Z", render(template, **values))


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("plain", '"A=plain"'),
        ("two words", '"A=two words"'),
        ("50%h", '"A=50%%h"'),
        ('say "x"', '"A=say \\"x\\""'),
        ("back\\slash", '"A=back\\\\slash"'),
        ("it's $HOME", '"A=it\'s $HOME"'),
        ("\\%", '"A=\\\\%%"'),
    ],
)
def test_systemd_assignment(value: str, quoted: str) -> None:
    assert systemd_assignment("A", value) == quoted


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("plain", '"plain"'),
        ("50%h", '"50%%h"'),
        ("it's $HOME", '"it\'s $$HOME"'),
        ('say "x" \\', '"say \\"x\\" \\\\"'),
    ],
)
def test_systemd_word(word: str, quoted: str) -> None:
    assert systemd_word(word) == quoted
