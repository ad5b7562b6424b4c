"""Where this project keeps things on a host."""

from __future__ import annotations

ETC = "/etc/llm-fleet"
LIB = "/usr/local/lib/llm-fleet"
RUN = "/run/llm-fleet"
UNITS = "/etc/systemd/system"
# Which secrets store this host's secrets are from.
SECRETS_STORE = f"{ETC}/secrets-store"
