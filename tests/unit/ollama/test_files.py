"""Ollama's units, as they are rendered and as systemd takes them."""

from __future__ import annotations

import shlex
from pathlib import Path

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.files import ManagedFile
from fleet.models import files as models
from fleet.ollama.files import unit_file
from fleet.ollama.servers import instances_of
from tests.fleets import GPU, fleet_of
from tests.unit.rendered import complaints, lay, lines, plain_storage


def unit_of(host: FleetHost) -> ManagedFile:
    """The unit of its first server, on a host without links."""
    [instance, *_] = instances_of(host)
    return unit_file(instance, plain_storage(instance))


class TestOllamaUnit:
    def test_environment_is_exactly_the_declared_one(self, fleet: Fleet) -> None:
        """Read back as systemd.exec(5) says: one quoted assignment a line, %% is a percent sign."""
        unit = unit_of(fleet["gpu1"]).text
        assignments = [
            shlex.split(line.removeprefix("Environment=").replace("%%", "%"))
            for line in lines(unit)
            if line.startswith("Environment=")
        ]
        assert all(len(words) == 1 for words in assignments)
        read = dict(word.split("=", 1) for [word] in assignments)
        assert read == instances_of(fleet["gpu1"])[0].env

    def test_percent_is_no_specifier(self, alternative: Fleet) -> None:
        assert 'Environment="FORMAT=50%%h of $HOME"' in lines(unit_of(alternative["gpu1"]).text)

    def test_models_directory_may_be_written_and_is_mounted_first(self, alternative: Fleet) -> None:
        unit = lines(unit_of(alternative["gpu1"]).text)
        assert "ReadWritePaths=/var/lib/ollama /data/models" in unit
        assert "RequiresMountsFor=/var/lib/ollama /data/models" in unit


class TestJudgedBySystemd:
    def test_takes_the_units(self, fleet: Fleet, tmp_path: Path) -> None:
        gpu = fleet["gpu1"]
        files = [unit_of(gpu), *models.unit_files(gpu)]
        for file in files:
            lay(tmp_path, file)
        for file in files:
            assert complaints(tmp_path, file.staged_name) == ""

    def test_takes_the_units_of_instances(self, tmp_path: Path) -> None:
        declared = {
            **GPU[1],
            "docker_enabled": True,
            "ollama_image": f"ollama/ollama:0.32.7@sha256:{'ab' * 32}",
            "ollama_env": {"FORMAT": "50%h of $HOME"},
            "ollama_instances": [
                {"name": "models", "port": 1, "gpus": [0]},
                {"name": "c", "port": 2, "gpus": [1], "runtime": "docker"},
            ],
        }
        gpu = fleet_of({"gpu1": ("gpu", declared)})["gpu1"]
        # What the container's unit stands on, which is not on every machine that tests.
        lay(tmp_path, ManagedFile("docker.service", "[Service]\nExecStart=/bin/true\n"))
        files = [unit_file(item, plain_storage(item), ["GPU-x"]) for item in instances_of(gpu)]
        for file in [*files, *models.unit_files(gpu)]:
            lay(tmp_path, file)
        for file in files:
            assert complaints(tmp_path, file.staged_name) == ""
        assert complaints(tmp_path, "ollama-models.service") == ""

    def test_warns_of_a_misspelt_key(self, tmp_path: Path) -> None:
        unit = "[Service]\nExecStart=/bin/true\nProtectHum=yes\n"
        lay(tmp_path, ManagedFile("x.service", unit))
        assert "Unknown key" in complaints(tmp_path, "x.service")
