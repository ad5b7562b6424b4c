"""Where the firewall is kept on a host, and the units."""

from __future__ import annotations

from fleet.declare.logs import Logs
from fleet.kit.paths import ETC, LIB, UNITS

FIREWALL_UNIT = "llm-fleet-firewall.service"
FIREWALL_UNIT_FILE = f"{UNITS}/{FIREWALL_UNIT}"
FIREWALL_RULESET = f"{ETC}/firewall.nft"
FIREWALL_TABLE = "inet llm_fleet"
FIREWALL_GUARD = f"{LIB}/firewall-guard"
NFTABLES_DROPIN = f"{UNITS}/nftables.service.d/llm-fleet.conf"

LOGS = Logs(
    units=(FIREWALL_UNIT,),
)
