"""Every template, with the values that its capability gives it."""

from __future__ import annotations

import re
from typing import Any

import jinja2
import pytest

from fleet.declare.fleet import Endpoint
from fleet.gateway.keys import key_tables
from fleet.gateway.settings import Gateway
from fleet.kit.render import TEMPLATES, render, systemd_assignment

# Template to what it needs; a template that is not listed here is one that no test renders.
VALUES: dict[str, dict[str, Any]] = {
    "container_toolkit/nvidia-cdi-refresh.dropin.conf.j2": {},
    "driver/llm-fleet-gpu-devices.service.j2": {"program": "/usr/lib/x"},
    "driver/nouveau.conf.j2": {},
    "driver/nvidia-fabricmanager.dropin.conf.j2": {"devices_unit": "x.service"},
    "driver/nvidia-persistenced.service.j2": {"devices_unit": "x.service"},
    "driver/preferences.j2": {"version": "580.*"},
    "driver/unattended.conf.j2": {},
    "firewall/firewall.nft.j2": {
        "table": "inet t",
        "rules": ["tcp dport 22 accept"],
        "published_rules": ["meta l4proto tcp ct original proto-dst 80 accept"],
        "container_interfaces": ["docker0", "br-*"],
        "log_drops": True,
    },
    "firewall/llm-fleet-firewall.service.j2": {"guard": "/usr/bin/true"},
    "firewall/nftables.dropin.conf.j2": {"guard": "/usr/bin/true"},
    "gateway/exporter.dropin.conf.j2": {
        "name": "nginx",
        "endpoint": "127.0.0.1:1",
        "status_socket": "/run/x.sock",
    },
    "gateway/keys.conf.j2": {"entries": {"sk-1": "team-a"}, "internal": "sk-2"},
    "gateway/metrics.service.j2": {
        "program": "/usr/lib/x.py",
        "log": "/var/log/x.log",
        "endpoint": Endpoint("127.0.0.1", 1),
    },
    "gateway/nginx.conf.j2": {
        "settings": Gateway(http_port=80),
        "endpoints": [],
        "redirect_endpoints": [Endpoint("127.0.0.1", 80)],
        "redirect_host": "$host",
        "acme_root": "/var/lib/x",
        "inspect_socket": "/run/x.sock",
        "status_socket": "/run/y.sock",
        "read_timeout": 900,
        "next_timeout": 20,
        "upstreams": [],
        "managed": {"gpu1": Endpoint("127.0.0.1", 1)},
        "tables": key_tables([], {}),
        "tls": None,
    },
    "gateway/sysctl.conf.j2": {"values": {"net.x": 1}},
    "gateway/nginx.dropin.conf.j2": {"config": "/etc/x.conf", "sockets": ["/run/x.sock"]},
    "models/ollama-models.service.j2": {
        "config": "/etc/x.json",
        "environment": {"A": "b"},
        "models_dir": "/data",
        "program": "/usr/lib/x.py",
        "restart_delay": 300,
        "servers": ["ollama.service"],
        "several": False,
    },
    "ollama/container.service.j2": {
        "name": "a",
        "container": "ollama-a",
        "image": "ollama@sha256:x",
        "endpoint": Endpoint("127.0.0.1", 1),
        "environment": {"A": "b"},
        "home": "/var/lib/x",
        "models_dir": "/data",
        "uuids": ["GPU-x"],
        "shown": ["/etc/hosts"],
        "loader": "x.service",
        "devices": "y.service",
    },
    "dify/chat.yml.j2": {"name": "a", "model": "m", "provider": "p"},
    "dify/workflow.yml.j2": {"name": "a", "model": "m", "provider": "p"},
    "dify/llm-fleet-dify-boot.service.j2": {"program": "/p", "config": "/c"},
    "dify/llm-fleet-dify-backup.service.j2": {"program": "/p", "config": "/c"},
    "dify/llm-fleet-dify-backup.timer.j2": {},
    "webui/webui.service.j2": {
        "name": "x",
        "image": "webui@sha256:x",
        "endpoint": Endpoint("127.0.0.1", 1),
        "environment": "/etc/x",
        "ca": "/etc/y",
        "ca_in_container": "/etc/z",
    },
    "webui/backup.service.j2": {"program": "/p", "config": "/c"},
    "webui/backup.timer.j2": {},
    "ollama/ollama.service.j2": {
        "name": "a",
        "binary": "/opt/ollama",
        "environment": {"A": "b"},
        "models_dir": "/data",
        "loader": "x.service",
        "devices": "y.service",
    },
}


class TestTemplates:
    def test_all_are_listed(self) -> None:
        found = {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.j2")}
        assert found == set(VALUES)

    @pytest.mark.parametrize("template", VALUES)
    def test_says_who_manages_it(self, template: str) -> None:
        assert "# Managed by llm-fleet" in "\n".join(
            render(template, **VALUES[template]).splitlines()[:2]
        )

    @pytest.mark.parametrize(
        ("template", "value"),
        [(template, value) for template, values in VALUES.items() for value in values],
    )
    def test_missing_value_is_an_error(self, template: str, value: str) -> None:
        values = {name: given for name, given in VALUES[template].items() if name != value}
        with pytest.raises(jinja2.UndefinedError, match=value):
            render(template, **values)

    @pytest.mark.parametrize("template", VALUES)
    def test_ends_with_one_line_break(self, template: str) -> None:
        assert re.search(r"[^\n]\n\Z", render(template, **VALUES[template]))


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("plain", '"A=plain"'),
        ("two words", '"A=two words"'),
        ("50%h", '"A=50%%h"'),
        ('say "x"', '"A=say \\"x\\""'),
        ("back\\slash", '"A=back\\\\slash"'),
        ("it's $HOME", '"A=it\'s $HOME"'),
        ("\\%", '"A=\\\\%%"'),
    ],
)
def test_systemd_assignment(value: str, quoted: str) -> None:
    assert systemd_assignment("A", value) == quoted
