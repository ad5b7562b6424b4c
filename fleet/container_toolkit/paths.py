"""Where the container toolkit is kept on a host, and the units."""

from __future__ import annotations

from fleet.kit.paths import ETC

TOOLKIT_OWNED = f"{ETC}/toolkit-owned.json"
CDI_UNIT = "nvidia-cdi-refresh.service"
CDI_DROPIN = f"/etc/systemd/system/{CDI_UNIT}.d/llm-fleet.conf"
CDI_WATCH_UNIT = "nvidia-cdi-refresh.path"
