"""Where this project keeps things on a host."""

from __future__ import annotations

import secrets

# This run, as its lock and its stages name it.
RUN_ID = secrets.token_hex(4)
ETC = "/etc/llm-fleet"
LIB = "/usr/local/lib/llm-fleet"
RUN = "/run/llm-fleet"
# What each unit was started with, a file a unit; kept through a reboot.
STARTED = "/var/lib/llm-fleet/started"
# Each run has its own, and the next one removes what a killed one left: `hold-lock` does.
STAGE = f"{RUN}/stage-{RUN_ID}"
UNITS = "/etc/systemd/system"
# Where snapd has the units of a snap, for its name.
SNAP_UNITS = f"{UNITS}/snap.{{}}.*.service"
# Which secrets store this host's secrets are from.
SECRETS_STORE = f"{ETC}/secrets-store"
