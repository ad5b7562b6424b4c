"""What a process on a host is kept from: all that it does not need, said once for every unit."""

from __future__ import annotations

from collections.abc import Mapping

# `systemd-analyze security` gives no unit of ours more than this, out of 10.
MOST_EXPOSED = 3.0
# Units that we only order or condition: what they need is their maker's to say.
NOT_OURS = {
    "nvidia-fabricmanager.service": "NVIDIA's daemon talks to NVSwitches by ways it does not tell",
    "nvidia-cdi-refresh.service": "NVIDIA's one-shot loads modules and writes specifications",
}

_Value = str | tuple[str, ...]

_TIGHTEST: Mapping[str, _Value] = {
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "NoNewPrivileges": "yes",
    "RestrictAddressFamilies": "AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": ("@system-service", "~@privileged @resources"),
    "SystemCallErrorNumber": "EPERM",
    "PrivateDevices": "yes",
    "DevicePolicy": "closed",
    "PrivateTmp": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProcSubset": "pid",
    "UMask": "0077",
}


def sandbox(**exceptions: _Value) -> list[str]:
    """Lines of a unit's `[Service]`: everything closed, but for the `exceptions` by their names."""
    return [
        f"{name}={value}"
        for name, values in {**_TIGHTEST, **exceptions}.items()
        for value in ((values,) if isinstance(values, str) else values)
    ]
