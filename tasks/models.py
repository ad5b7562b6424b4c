"""The models that a host serves: provided by the host itself, in a unit of their own."""

from __future__ import annotations

import json

from pyinfra.api import StringCommand, deploy

from fleet.declare.fleet import FleetHost
from fleet.kit.commands import verify_unit
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.units import enable_unit
from fleet.models.files import loader_config, loader_files, names_in_use, unit_files
from fleet.models.operations import choose_model, provide_models
from fleet.models.paths import LOADER_TIMER
from fleet.models.settings import Models
from fleet.ollama.models import is_auto
from fleet.ollama.paths import LOADER_UNIT


@deploy("Models")
def models(me: FleetHost) -> None:
    """Have the declared models present; the pull shows its progress and outlives this deploy."""
    install_packages(name="Install Python", packages=["python3"])
    install_files(name="Install the loader", files=loader_files(me))
    if any(map(is_auto, names_in_use(me))):
        choose_model(name="Choose the model by the host's memory")
    install_files(
        name="Install the loader's unit",
        files=unit_files(me),
        check=StringCommand(
            "(", verify_unit(LOADER_UNIT), ") && (", verify_unit(LOADER_TIMER), ")"
        ),
    )
    enable_unit(name="Run the loader whenever Ollama starts", unit=LOADER_UNIT)
    provide_models(
        name="Provide the models",
        config=json.dumps(loader_config(me)),
        wait_timeout=me[Models].patience,
    )
