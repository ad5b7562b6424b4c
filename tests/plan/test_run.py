"""What goes wrong on one host of a run is that host's, and is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pyinfra.api.exceptions import OperationError, PyinfraError
from pyinfra.context import ctx_state
from pyinfra.facts.files import Directory
from pyinfra.facts.server import Arch

from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.facts.units import ABSENT, UnitState
from tests.fleets import EDGE, GPU
from tests.plan.conftest import from_bare
from tests.plan.simulation import Answers, Plan, bare, plan

HOSTS = {"gpu1": GPU, "edge": EDGE}
TRANSIENT = replace(ABSENT, is_transient=True)


def raising(error: Exception, *, once_executing: bool = False) -> Any:
    """A fact that cannot be had."""

    def answer(**_: Any) -> Any:
        if once_executing and not ctx_state.get().is_executing:
            return ABSENT
        raise error

    return answer


def planned(of_gpu1: Answers) -> Plan:
    return plan(HOSTS, {"gpu1": bare() | of_gpu1, "edge": bare()}, alone=True)


class TestPlanning:
    @pytest.mark.parametrize(
        ("answers", "reason"),
        [
            pytest.param(bare("debian", "11"), "debian 11 is not supported, only", id="refusal"),
            pytest.param(
                {Arch: raising(ValueError("could not convert '1,5'"))},
                "ValueError: could not convert '1,5'",
                id="a fact that cannot be parsed",
            ),
            pytest.param(
                {Directory: raising(OperationError("/data is a file"))},
                "/data is a file",
                id="pyinfra's own error",
            ),
        ],
    )
    def test_the_others_go_on(self, answers: Answers, reason: str) -> None:
        result = planned(answers)
        assert list(result.failed) == ["@fake/gpu1"]
        assert result.failed["@fake/gpu1"].startswith(reason)
        assert result.steps["gpu1"] == []
        assert result.names("edge") == from_bare("two hosts").names("edge")

    @pytest.mark.parametrize(
        ("answers", "reason"),
        [
            pytest.param(
                {ForeignFiles: lambda patterns: ["/etc/systemd/system/ollama.service.d/x.conf"]},
                "somebody else's drop-ins",
                id="a drop-in",
            ),
            pytest.param(
                {UnitState: lambda unit, files, reloaded=False: TRANSIENT},
                "was started by systemd-run",
                id="of a step",
            ),
        ],
    )
    def test_what_a_deploy_would_refuse_a_dry_run_refuses(
        self, answers: Answers, reason: str
    ) -> None:
        """... of that host: a key that is taken back reaches the gateway all the same."""
        result = planned(answers)
        assert reason in result.failed["@fake/gpu1"]
        # Not one step of it is run.
        assert result.steps["gpu1"] == []
        assert result.names("edge") == from_bare("two hosts").names("edge")

    def test_no_host_left_ends_the_run(self) -> None:
        with pytest.raises(PyinfraError, match="No hosts remaining"):
            plan({"gpu1": GPU}, {"gpu1": bare("debian", "11")}, alone=True)

    def test_where_an_error_without_words_was_raised_is_shown(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        planned({Arch: raising(ValueError("1,5"))})
        assert "Traceback" in caplog.text


class TestExecution:
    @pytest.mark.parametrize("error", [ValueError("1,5"), OperationError("/data is a file")])
    def test_the_others_go_on(self, error: Exception) -> None:
        """The same operations are asked again when they are run."""
        result = planned({UnitState: raising(error, once_executing=True)})
        assert list(result.failed) == ["@fake/gpu1"]
        assert str(error) in result.failed["@fake/gpu1"]
        assert result.names("edge") == from_bare("two hosts").names("edge")
        # Nothing is run on the host after what failed.
        assert "Models | Provide the models" not in result.names("gpu1")
