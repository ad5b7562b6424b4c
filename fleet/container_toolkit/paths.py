"""Where the container toolkit is kept on a host, and the units."""

from __future__ import annotations

from fleet.declare.logs import Logs
from fleet.kit.paths import ETC, UNITS

TOOLKIT_OWNED = f"{ETC}/toolkit-owned.json"
CDI_UNIT = "nvidia-cdi-refresh.service"
CDI_DROPIN = f"{UNITS}/{CDI_UNIT}.d/llm-fleet.conf"
CDI_WATCH_UNIT = "nvidia-cdi-refresh.path"

LOGS = Logs(
    units=(CDI_UNIT, CDI_WATCH_UNIT),
)
