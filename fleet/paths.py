"""Where this project keeps things on a host."""

from __future__ import annotations

ETC = "/etc/llm-fleet"
LIB = "/usr/local/lib/llm-fleet"
RUN = "/run/llm-fleet"

OLLAMA_HOME = "/var/lib/ollama"
OLLAMA_ROOT = "/opt/ollama"
OLLAMA_CURRENT = f"{OLLAMA_ROOT}/current"
OLLAMA_BINARY = f"{OLLAMA_CURRENT}/bin/ollama"
OLLAMA_UNIT = "ollama.service"
OLLAMA_UNIT_FILE = f"/etc/systemd/system/{OLLAMA_UNIT}"

LOADER_UNIT = "ollama-models.service"
LOADER_UNIT_FILE = f"/etc/systemd/system/{LOADER_UNIT}"
LOADER_CONFIG = f"{ETC}/models.json"
LOADER_STATE = "/run/llm-fleet-models/state.json"

GATEWAY_UNIT = "nginx.service"
GATEWAY_DIR = f"{ETC}/gateway"
GATEWAY_CONFIG = f"{GATEWAY_DIR}/nginx.conf"
GATEWAY_KEYS = f"{GATEWAY_DIR}/keys.conf"
GATEWAY_DROPIN = f"/etc/systemd/system/{GATEWAY_UNIT}.d/llm-fleet.conf"

FIREWALL_UNIT = "llm-fleet-firewall.service"
FIREWALL_UNIT_FILE = f"/etc/systemd/system/{FIREWALL_UNIT}"
FIREWALL_RULESET = f"{ETC}/firewall.nft"
FIREWALL_TABLE = "inet llm_fleet"
FIREWALL_GUARD = f"{LIB}/firewall-guard"
NFTABLES_DROPIN = "/etc/systemd/system/nftables.service.d/llm-fleet.conf"
