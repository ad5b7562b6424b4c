"""Where Dify is kept on a host, and the units."""

from __future__ import annotations

from fleet.kit.paths import ETC, LIB, UNITS

DIFY_PRISTINE = "/opt/dify"
DIFY_ROOT = "/var/lib/dify"
DIFY_STACK_PROGRAM = f"{LIB}/dify_stack.py"
DIFY_CLIENT_PROGRAM = f"{LIB}/dify_client.py"
DIFY_STACK_CONFIG = f"{ETC}/dify/stack.json"
DIFY_CLIENT_CONFIG = f"{ETC}/dify/client.json"
DIFY_VALUES = f"{ETC}/dify/values.env"
DIFY_SECRETS = f"{ETC}/dify/secrets.json"
DIFY_CA = f"{ETC}/dify/fleet-ca.pem"
DIFY_PACKAGE = f"{DIFY_ROOT}/ollama.difypkg"
DIFY_KEPT_PACKAGE = f"{DIFY_ROOT}/ollama.kept.difypkg"
DIFY_KEYS = f"{DIFY_ROOT}/app-keys.json"
DIFY_MEMORY = f"{DIFY_ROOT}/memory.json"
DIFY_RESTORE = f"{DIFY_ROOT}/restore.tar"
DIFY_JOB = "llm-fleet-dify.service"
DIFY_SETUP_JOB = "llm-fleet-dify-setup.service"
DIFY_BOOT_UNIT = "llm-fleet-dify-boot.service"
DIFY_BOOT_UNIT_FILE = f"{UNITS}/{DIFY_BOOT_UNIT}"
DIFY_BACKUP_UNIT = "llm-fleet-dify-backup.service"
DIFY_BACKUP_UNIT_FILE = f"{UNITS}/{DIFY_BACKUP_UNIT}"
DIFY_BACKUP_TIMER = "llm-fleet-dify-backup.timer"
DIFY_BACKUP_TIMER_FILE = f"{UNITS}/{DIFY_BACKUP_TIMER}"
