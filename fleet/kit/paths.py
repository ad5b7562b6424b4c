"""Where this project keeps things on a host."""

from __future__ import annotations

ETC = "/etc/llm-fleet"
LIB = "/usr/local/lib/llm-fleet"
RUN = "/run/llm-fleet"
UNITS = "/etc/systemd/system"
# Which secrets store this host's secrets are from.
SECRETS_STORE = f"{ETC}/secrets-store"

OLLAMA_HOME = "/var/lib/ollama"
OLLAMA_ROOT = "/opt/ollama"
OLLAMA_CURRENT = f"{OLLAMA_ROOT}/current"
OLLAMA_BINARY = f"{OLLAMA_CURRENT}/bin/ollama"
OLLAMA_UNIT = "ollama.service"
OLLAMA_UNIT_FILE = f"/etc/systemd/system/{OLLAMA_UNIT}"

LOADER_UNIT = "ollama-models.service"
LOADER_UNIT_FILE = f"/etc/systemd/system/{LOADER_UNIT}"
LOADER_PROGRAM = f"{LIB}/model_loader.py"
LOADER_CONFIG = f"{ETC}/models.json"
LOADER_STATE = "/run/llm-fleet-models/state.json"
LOADER_MEMORY = "/var/lib/llm-fleet-models/memory.json"
MODEL_CHOICE = f"{ETC}/model-choice.json"

GATEWAY_UNIT = "nginx.service"
GATEWAY_DIR = f"{ETC}/gateway"
GATEWAY_CONFIG = f"{GATEWAY_DIR}/nginx.conf"
GATEWAY_KEYS = f"{GATEWAY_DIR}/keys.conf"
GATEWAY_DRAINED = f"{GATEWAY_DIR}/drained"
GATEWAY_CERTIFICATE = f"{GATEWAY_DIR}/tls.crt"
GATEWAY_CERTIFICATE_KEY = f"{GATEWAY_DIR}/tls.key"
GATEWAY_INSPECT_SOCKET = "/run/llm-fleet-inspect.sock"
GATEWAY_STATUS_SOCKET = "/run/llm-fleet-status.sock"
GATEWAY_LOG = "/var/log/nginx/gateway.log"
GATEWAY_SYSCTL = "/etc/sysctl.d/60-llm-fleet-gateway.conf"
GATEWAY_DROPIN = f"/etc/systemd/system/{GATEWAY_UNIT}.d/llm-fleet.conf"

ACME_ROOT = "/var/lib/llm-fleet-acme"
ACME_HOOK = f"{LIB}/install-certificate"
ACME_NAME = "llm-fleet"

METRICS_UNIT = "llm-fleet-gateway-metrics.service"
METRICS_UNIT_FILE = f"/etc/systemd/system/{METRICS_UNIT}"
METRICS_PROGRAM = f"{LIB}/gateway_metrics.py"
# Exporters of the distribution: unit to the drop-in that binds it privately.
EXPORTERS = {
    name: f"/etc/systemd/system/prometheus-{name}-exporter.service.d/llm-fleet-{name}.conf"
    for name in ("nginx", "node")
}

FIREWALL_UNIT = "llm-fleet-firewall.service"
FIREWALL_UNIT_FILE = f"/etc/systemd/system/{FIREWALL_UNIT}"
FIREWALL_RULESET = f"{ETC}/firewall.nft"
FIREWALL_TABLE = "inet llm_fleet"
FIREWALL_GUARD = f"{LIB}/firewall-guard"
NFTABLES_DROPIN = "/etc/systemd/system/nftables.service.d/llm-fleet.conf"

DRIVER_PREFERENCES = "/etc/apt/preferences.d/llm-fleet-nvidia"
DRIVER_UNATTENDED = "/etc/apt/apt.conf.d/52llm-fleet-driver"
DRIVER_NOUVEAU = "/etc/modprobe.d/llm-fleet-nouveau.conf"
DRIVER_LOGS = "/var/log/llm-fleet"
DRIVER_WARNING = f"{DRIVER_LOGS}/driver-warning"
DRIVER_JOB = "llm-fleet-driver-install.service"

DEVICES_UNIT = "llm-fleet-gpu-devices.service"
DEVICES_UNIT_FILE = f"/etc/systemd/system/{DEVICES_UNIT}"
PERSISTENCED_UNIT = "nvidia-persistenced.service"
PERSISTENCED_UNIT_FILE = f"/etc/systemd/system/{PERSISTENCED_UNIT}"
FABRIC_UNIT = "nvidia-fabricmanager.service"
FABRIC_DROPIN = f"/etc/systemd/system/{FABRIC_UNIT}.d/llm-fleet.conf"

DOCKER_UNIT = "docker.service"
DOCKER_CONFIG = "/etc/docker/daemon.json"
# Where Docker CE and the distributions have the daemon.
DOCKER_BINARIES = ("/usr/bin/dockerd", "/usr/sbin/dockerd")
# Which keys of daemon.json are ours.
DOCKER_OWNED = f"{ETC}/docker-owned.json"
TOOLKIT_OWNED = f"{ETC}/toolkit-owned.json"
CDI_UNIT = "nvidia-cdi-refresh.service"
CDI_DROPIN = f"/etc/systemd/system/{CDI_UNIT}.d/llm-fleet.conf"
CDI_WATCH_UNIT = "nvidia-cdi-refresh.path"

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
DIFY_KEYS = f"{DIFY_ROOT}/app-keys.json"
DIFY_MEMORY = f"{DIFY_ROOT}/memory.json"
DIFY_RESTORE = f"{DIFY_ROOT}/restore.tar"
DIFY_JOB = "llm-fleet-dify.service"
DIFY_SETUP_JOB = "llm-fleet-dify-setup.service"
DIFY_BOOT_UNIT = "llm-fleet-dify-boot.service"
DIFY_BOOT_UNIT_FILE = f"/etc/systemd/system/{DIFY_BOOT_UNIT}"
DIFY_BACKUP_UNIT = "llm-fleet-dify-backup.service"
DIFY_BACKUP_UNIT_FILE = f"/etc/systemd/system/{DIFY_BACKUP_UNIT}"
DIFY_BACKUP_TIMER = "llm-fleet-dify-backup.timer"
DIFY_BACKUP_TIMER_FILE = f"/etc/systemd/system/{DIFY_BACKUP_TIMER}"

WEBUI_UNIT = "llm-fleet-webui.service"
WEBUI_UNIT_FILE = f"/etc/systemd/system/{WEBUI_UNIT}"
WEBUI_ENVIRONMENT = f"{ETC}/webui/environment"
WEBUI_CA = f"{ETC}/webui/fleet-ca.pem"
WEBUI_BACKUP_PROGRAM = f"{LIB}/webui_backup.py"
WEBUI_BACKUP_CONFIG = f"{ETC}/webui/backup.json"
WEBUI_BACKUP_UNIT = "llm-fleet-webui-backup.service"
WEBUI_BACKUP_UNIT_FILE = f"/etc/systemd/system/{WEBUI_BACKUP_UNIT}"
WEBUI_BACKUP_TIMER = "llm-fleet-webui-backup.timer"
WEBUI_BACKUP_TIMER_FILE = f"/etc/systemd/system/{WEBUI_BACKUP_TIMER}"


def ollama_instance_unit(name: str) -> str:
    """The unit of one of several Ollama servers."""
    return f"ollama@{name}.service"
