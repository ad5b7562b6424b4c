"""The inventory of test_models.py: the lab's own, with the models that LAB_MODELS holds as JSON."""

import json
import os
import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[2] / "inventory" / "lab.py"))
gpu = (
    _lab["gpu"][0],
    {
        **_lab["gpu"][1],
        "ollama_models": json.loads(os.environ["LAB_MODELS"]),
        # That of the custom model: with another one it and its base would load each other anew.
        "ollama_context_length": 2048,
    },
)
gateway = _lab["gateway"]
all = _lab["all"]  # noqa: A001 - pyinfra's name for the data of every host
