"""Where the GPU driver is kept on a host, and the units."""

from __future__ import annotations

from fleet.declare.logs import Logs
from fleet.kit.paths import UNITS

DRIVER_PREFERENCES = "/etc/apt/preferences.d/llm-fleet-nvidia"
DRIVER_UNATTENDED = "/etc/apt/apt.conf.d/52llm-fleet-driver"
DRIVER_NOUVEAU = "/etc/modprobe.d/llm-fleet-nouveau.conf"
DRIVER_LOGS = "/var/log/llm-fleet"
DRIVER_WARNING = f"{DRIVER_LOGS}/driver-warning"
DRIVER_JOB = "llm-fleet-driver-install.service"
DEVICES_UNIT = "llm-fleet-gpu-devices.service"
DEVICES_UNIT_FILE = f"{UNITS}/{DEVICES_UNIT}"
PERSISTENCED_UNIT = "nvidia-persistenced.service"
PERSISTENCED_UNIT_FILE = f"{UNITS}/{PERSISTENCED_UNIT}"
FABRIC_UNIT = "nvidia-fabricmanager.service"
FABRIC_DROPIN = f"{UNITS}/{FABRIC_UNIT}.d/llm-fleet.conf"

LOGS = Logs(
    units=(DRIVER_JOB, DEVICES_UNIT, PERSISTENCED_UNIT, FABRIC_UNIT),
)
