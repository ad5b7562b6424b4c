"""Where Open WebUI is kept on a host, and the units."""

from __future__ import annotations

from fleet.declare.logs import Logs
from fleet.kit.paths import ETC, LIB, UNITS

WEBUI_UNIT = "llm-fleet-webui.service"
WEBUI_UNIT_FILE = f"{UNITS}/{WEBUI_UNIT}"
WEBUI_ENVIRONMENT = f"{ETC}/webui/environment"
WEBUI_CA = f"{ETC}/webui/fleet-ca.pem"
WEBUI_BACKUP_PROGRAM = f"{LIB}/webui_backup.py"
WEBUI_BACKUP_CONFIG = f"{ETC}/webui/backup.json"
WEBUI_BACKUP_UNIT = "llm-fleet-webui-backup.service"
WEBUI_BACKUP_UNIT_FILE = f"{UNITS}/{WEBUI_BACKUP_UNIT}"
WEBUI_BACKUP_TIMER = "llm-fleet-webui-backup.timer"
WEBUI_BACKUP_TIMER_FILE = f"{UNITS}/{WEBUI_BACKUP_TIMER}"

LOGS = Logs(
    units=(WEBUI_UNIT, WEBUI_BACKUP_UNIT),
)
