"""What the gateway's checks say of a certificate's end."""

from __future__ import annotations

from typing import get_args

from fleet.gateway.settings import GatewayTls
from tests.compliance.test_gateway import _RENEWAL


def test_every_certificate_has_somebody_who_renews_it() -> None:
    assert set(_RENEWAL) == set(get_args(GatewayTls)) - {"off"}
