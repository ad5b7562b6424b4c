"""Where weights are kept on a host, and the units."""

from __future__ import annotations

from fleet.declare.logs import Logs
from fleet.kit.paths import ETC, LIB, UNITS

WEIGHTS_USER = "llm-fleet-weights"
WEIGHTS_UNIT = "llm-fleet-weights.service"
WEIGHTS_UNIT_FILE = f"{UNITS}/{WEIGHTS_UNIT}"
WEIGHTS_TIMER = "llm-fleet-weights-again.timer"
WEIGHTS_TIMER_FILE = f"{UNITS}/{WEIGHTS_TIMER}"
WEIGHTS_PROGRAM = f"{LIB}/weights_loader.py"
WEIGHTS_CONFIG = f"{ETC}/weights.json"
WEIGHTS_TOKEN = f"{ETC}/weights-token"
WEIGHTS_STATE = "/run/llm-fleet-weights/state.json"
# The user has no home; this says whose it is.
WEIGHTS_HOME = "/var/lib/llm-fleet-weights"
# What the loader keeps in the directory of the weights, beside them.
KEPT = (".llm-fleet-weights.lock", ".llm-fleet-weights.json")
# ... and in the folder of each name, which tells that it is ours.
OURS = ".llm-fleet"

LOGS = Logs(units=(WEIGHTS_UNIT,))


def folder(weights_dir: str, name: str, revision: str) -> str:
    """Where the files of a revision are.

    It has this name once every byte of every file was hashed and is what the lock says.
    """
    return f"{weights_dir}/{name}/{revision}"
