"""Where this project keeps things on a host."""

from __future__ import annotations

ETC = "/etc/llm-fleet"
LIB = "/usr/local/lib/llm-fleet"
RUN = "/run/llm-fleet"
UNITS = "/etc/systemd/system"
# Where snapd has the units of a snap, for its name.
SNAP_UNITS = f"{UNITS}/snap.{{}}.*.service"
# Which secrets store this host's secrets are from.
SECRETS_STORE = f"{ETC}/secrets-store"
