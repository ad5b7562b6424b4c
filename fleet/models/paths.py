"""Where models are kept on a host, and the units."""

from __future__ import annotations

from fleet.declare.logs import Logs
from fleet.kit.paths import ETC, LIB, UNITS
from fleet.ollama.paths import LOADER_UNIT

LOADER_TIMER = "ollama-models-again.timer"
LOADER_TIMER_FILE = f"{UNITS}/{LOADER_TIMER}"
LOADER_PROGRAM = f"{LIB}/model_loader.py"
LOADER_CONFIG = f"{ETC}/models.json"
LOADER_STATE = "/run/llm-fleet-models/state.json"
LOADER_MEMORY = "/var/lib/llm-fleet-models/memory.json"
MODEL_CHOICE = f"{ETC}/model-choice.json"

LOGS = Logs(units=(LOADER_UNIT,))
