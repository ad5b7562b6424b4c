"""The hub and its site, for all tests of weights."""

from __future__ import annotations

from tests.unit.weights.hub_rig import hub, site

__all__ = ["hub", "site"]
