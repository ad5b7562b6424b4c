"""Configurations that the daemon is not given."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.docker.operations import RefusedError, refuse_exposed, refuse_unknown_log_opts


class TestRefusals:
    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"hosts": ["fd://", "tcp://0.0.0.0:2375"]}, "hosts = tcp://0.0.0.0:2375: .*remove it"),
            ({"iptables": False}, "iptables = false"),
            ({"ip6tables": False}, "ip6tables = false"),
        ],
    )
    def test_exposing_keys_are_refused(self, config: dict[str, Any], words: str) -> None:
        with pytest.raises(RefusedError, match=words):
            refuse_exposed(config)

    def test_log_options_of_another_driver_are_refused(self) -> None:
        """`dockerd --validate` accepts them, and then the daemon does not start."""
        opts = {"labels": "team", "max-size": "10m", "mode": "non-blocking"}
        with pytest.raises(RefusedError) as refused:
            refuse_unknown_log_opts({"log-driver": "local", "log-opts": opts})
        assert "log-opts: labels: " in str(refused.value)
        assert "or set docker_log_driver = 'json-file'" in str(refused.value)
        refuse_unknown_log_opts({"log-driver": "json-file", "log-opts": opts})
        refuse_unknown_log_opts({"log-driver": "local"})

    def test_others_are_not(self) -> None:
        refuse_exposed({"hosts": ["unix:///x"], "iptables": True, "bip": "10.9.0.1/24"})
