"""The loader's configuration and its unit."""

from __future__ import annotations

import json

import pytest

from fleet.declare.fleet import Fleet
from fleet.models import files as models
from fleet.models.files import loader_config
from tests.fleets import fleet_of
from tests.unit.rendered import lines


class TestModels:
    def test_default(self, default: Fleet) -> None:
        config = loader_config(default["gpu1"])
        assert config["api"] == "http://10.0.0.11:11434"
        assert config["limits"] == {
            "no_progress": 180.0,
            "slow_rate": 0.0,
            "slow_window": 120.0,
            "attempts": 5,
            "first_delay": 5.0,
            "longest_delay": 300.0,
            "disk_reserve": 5e9,
        }
        [model] = config["models"]
        assert (model["name"], model["source"]) == ("gpt-oss:20b", "gpt-oss:20b")
        assert (model["insecure"], model["load"], model["base"]) == (False, False, None)

    def test_declarations(self, alternative: Fleet) -> None:
        config = loader_config(alternative["gpu1"])
        declared = {model["name"]: model for model in config["models"]}
        assert declared["hf.co/team/model:Q4"]["digest"] == "cd" * 32
        assert declared["analyst:latest"]["base"] == "gpt-oss:120b"
        assert declared["analyst:latest"]["keep_alive"] == "12h"
        assert declared["analyst:latest"]["definition"] == {
            "system": "Be brief.",
            "template": "{{ .Prompt }}",
            "parameters": {"num_ctx": 131072, "temperature": 0.2, "stop": ["User:"]},
        }
        assert declared["house:latest"]["gguf"] == "/srv/house.gguf"
        assert declared["house:latest"]["sha256"] == "ef" * 32

    def test_base_that_nobody_declared_is_pulled_too(self) -> None:
        fleet = fleet_of({"gpu1": ("gpu", {
            "ollama_models": [{"name": "own", "base": "gpt-oss:20b", "load": True}]})})  # fmt: skip
        own, base = loader_config(fleet["gpu1"])["models"]
        assert (own["name"], own["keep_alive"]) == ("own:latest", -1)
        assert (base["name"], base["load"]) == ("gpt-oss:20b", False)

    @pytest.mark.parametrize(("text", "sent"), [("-1", -1), ("90", 90), ("-2h", "-2h")])
    def test_keep_alive_as_the_api_reads_it(self, text: str, sent: str | int) -> None:
        """`"-1"` as text would be refused there: a duration needs a unit."""
        model = {"name": "gpt-oss:20b", "load": True, "keep_alive": text}
        fleet = fleet_of({"gpu1": ("gpu", {"ollama_models": [model]})})
        assert [item["keep_alive"] for item in loader_config(fleet["gpu1"])["models"]] == [sent]

    def test_mirror(self, alternative: Fleet) -> None:
        config = loader_config(alternative["gpu1"])
        assert config["api"] == "http://[fd00::11]:21434"
        sources = {model["name"]: model["source"] for model in config["models"]}
        assert sources == {
            "gpt-oss:120b": "mirror.internal:5000/library/gpt-oss:120b",
            "hf.co/team/model:Q4": "hf.co/team/model:Q4",
            "embed:latest": "mirror.internal:5000/library/embed:latest",
            "analyst:latest": "analyst:latest",
            "house:latest": "house:latest",
        }

    def test_only_the_mirror_is_insecure(self, alternative: Fleet) -> None:
        config = loader_config(alternative["gpu1"])
        insecure = {model["name"]: model["insecure"] for model in config["models"]}
        assert insecure == {
            "gpt-oss:120b": True,
            "hf.co/team/model:Q4": False,
            "embed:latest": True,
            "analyst:latest": False,
            "house:latest": False,
        }

    def test_configuration_is_what_the_loader_reads(self, fleet: Fleet) -> None:
        *_, loader, config, _, unit = models.managed_files(fleet["gpu1"])
        assert json.loads(config.text) == loader_config(fleet["gpu1"])
        assert f"ExecStart=/usr/bin/python3 {loader.path} {config.path}" in lines(unit.text)

    def test_failed_run_lets_the_registry_rest_and_a_killed_one_goes_on(
        self, default: Fleet
    ) -> None:
        *_, timer, unit = models.managed_files(default["gpu1"])
        assert {"RestartSec=5.0", "RestartPreventExitStatus=1"} <= set(lines(unit.text))
        assert "OnFailure=ollama-models-again.timer" in lines(unit.text)
        assert {"OnActiveSec=300.0", "Unit=ollama-models.service"} <= set(lines(timer.text))
        assert "PartOf=ollama-models.service ollama.service" in lines(timer.text)
