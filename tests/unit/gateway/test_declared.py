"""How a gateway is known."""

from __future__ import annotations

from fleet.declare.fleet import FleetHost
from fleet.gateway.declared import gateway_names, gateway_url
from tests.fleets import EDGE, GPU, fleet_of


class TestNames:
    def test_names_in_the_url_and_in_the_certificate(self) -> None:
        def edge(**data: object) -> FleetHost:
            return fleet_of({"gpu1": GPU, "edge": ("gateway", {**EDGE[1], **data})})["edge"]

        assert str(gateway_url(edge())) == "https://10.0.0.2:8434"
        assert str(gateway_url(edge(gateway_tls="off"))) == "http://10.0.0.2:8434"
        named = edge(gateway_names=["llm.example.com"])
        assert str(gateway_url(named)) == "https://llm.example.com:8434"
        assert {"llm.example.com", "edge", "10.0.0.2"} <= set(gateway_names(named))
