"""Every template, for the smallest settings and for the alternative ones.

nft and systemd-analyze judge their files here too, as they will on the host; nginx judges its own
on the lab's hosts, where the addresses that it binds exist.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest

from fleet.declare.fleet import Endpoint, Fleet
from fleet.firewall import files as firewall
from fleet.firewall.paths import FIREWALL_GUARD
from fleet.firewall.rules import accept_rules
from fleet.gateway.declared import gateway_keys
from fleet.gateway.files import config_files, curves, dropin_file
from fleet.gateway.keys import key_tables
from fleet.gateway.paths import GATEWAY_CONFIG
from fleet.gateway.settings import Gateway
from fleet.kit.render import TEMPLATES, render, systemd_assignment
from fleet.models import files as models
from fleet.models.files import _keep_alive, loader_config
from fleet.ollama.files import unit_file
from fleet.ollama.models import pull_name
from fleet.ollama.paths import OLLAMA_BINARY
from fleet.ollama.servers import instances_of
from tests.fleets import ALTERNATIVE_GATEWAY, ALTERNATIVE_GPU, EDGE, GPU, Hosts, fleet_of

SCENARIOS: dict[str, Hosts] = {
    "default": {"gpu1": GPU, "edge": EDGE},
    "alternative": {"gpu1": ("gpu", ALTERNATIVE_GPU), "edge": ("gateway", ALTERNATIVE_GATEWAY)},
}

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


@pytest.fixture(params=SCENARIOS)
def fleet(request: pytest.FixtureRequest) -> Fleet:
    return fleet_of(SCENARIOS[request.param])


@pytest.fixture
def default() -> Fleet:
    return fleet_of(SCENARIOS["default"])


@pytest.fixture
def alternative() -> Fleet:
    return fleet_of(SCENARIOS["alternative"])


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


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


class TestOllamaUnit:
    def test_environment_is_exactly_the_declared_one(self, fleet: Fleet) -> None:
        """Read back as systemd.exec(5) says: one quoted assignment a line, %% is a percent sign."""
        unit = unit_file(instances_of(fleet["gpu1"])[0]).text
        assignments = [
            shlex.split(line.removeprefix("Environment=").replace("%%", "%"))
            for line in lines(unit)
            if line.startswith("Environment=")
        ]
        assert all(len(words) == 1 for words in assignments)
        read = dict(word.split("=", 1) for [word] in assignments)
        assert read == instances_of(fleet["gpu1"])[0].env

    def test_percent_is_no_specifier(self, alternative: Fleet) -> None:
        assert 'Environment="FORMAT=50%%h of $HOME"' in lines(
            unit_file(instances_of(alternative["gpu1"])[0]).text
        )

    def test_models_directory_may_be_written_and_is_mounted_first(self, alternative: Fleet) -> None:
        unit = lines(unit_file(instances_of(alternative["gpu1"])[0]).text)
        assert "ReadWritePaths=/data/models" in unit
        assert "RequiresMountsFor=/data/models" in unit


class TestGateway:
    @staticmethod
    def config(fleet: Fleet) -> list[str]:
        return lines(TestGateway.text(fleet))

    @staticmethod
    def text(fleet: Fleet, *drained: str) -> str:
        return config_files(fleet["edge"], fleet, (3, 5), list(drained))[0].text

    def test_default(self, default: Fleet) -> None:
        config = self.config(default)
        assert [line for line in config if line.startswith("listen ")] == [
            "listen unix:/run/llm-fleet-inspect.sock;",
            "listen unix:/run/llm-fleet-status.sock;",
            "listen 10.0.0.2:8434 ssl;",
        ]
        assert [line for line in config if line.startswith("server 1")] == [
            "server 10.0.0.11:11434 max_fails=1 fail_timeout=5s;"
        ]
        assert "client_max_body_size 64m;" in config
        assert "proxy_read_timeout 900s;" in config

    def test_alternative(self, alternative: Fleet) -> None:
        config = self.config(alternative)
        assert [line for line in config if line.startswith("listen ")] == [
            "listen unix:/run/llm-fleet-inspect.sock;",
            "listen unix:/run/llm-fleet-status.sock;",
            "listen 0.0.0.0:80;",
            "listen [::]:80 ipv6only=on;",
            "listen 0.0.0.0:8443 ssl;",
            "listen [::]:8443 ssl ipv6only=on;",
        ]
        assert [line for line in config if re.match(r"server [\d\[]", line)] == [
            "server [fd00::11]:21434 max_fails=1 fail_timeout=5s;"
        ]
        assert "client_max_body_size 256m;" in config
        assert "proxy_read_timeout 5400s;" in config

    def test_every_gpu_host_serves(self) -> None:
        gpus = {
            f"gpu{n}": ("gpu", {**GPU[1], "private_address": f"10.0.0.{n}"}) for n in range(11, 14)
        }
        config = self.config(fleet_of({**gpus, "edge": EDGE}))
        assert [line for line in config if line.startswith("server 1")] == [
            f"server 10.0.0.{n}:11434 max_fails=1 fail_timeout=5s;" for n in range(11, 14)
        ]

    def test_drained_host_gets_nothing(self) -> None:
        gpus = {f"gpu{n}": ("gpu", {**GPU[1], "private_address": f"10.0.0.{n}"}) for n in (11, 12)}
        text = self.text(fleet_of({**gpus, "edge": EDGE}), "gpu12")
        assert "server 10.0.0.11:11434 max_fails=1 fail_timeout=5s;" in text
        assert "server 10.0.0.12:11434 max_fails=1 fail_timeout=5s down;" in text

    @pytest.mark.parametrize(
        ("openssl", "first"), [((3, 0), "X25519"), ((3, 4), "X25519"), ((3, 5), "X25519MLKEM768")]
    )
    def test_curves_are_those_that_openssl_knows(
        self, openssl: tuple[int, int], first: str
    ) -> None:
        """OpenSSL 3.0 refuses the whole list for one name that it does not know."""
        assert curves(openssl).split(":")[0] == first

    def test_every_request_needs_a_key_but_the_health_check(self, fleet: Fleet) -> None:
        """Each location that can be asked for refuses first, whatever it does then."""
        door = self.text(fleet).split("access_log /var/log/nginx/gateway.log")[1]
        public = re.findall(r"^ +location ([^@].*) \{\n +(.+)\n +(.+)$", door, flags=re.MULTILINE)
        assert len(public) == 6
        for place, *checks in public:
            if place == "= /healthz":
                continue
            assert checks == [
                'if ($client_name = "") { return 401; }',
                "if ($source_ok = 0) { return 403; }",
            ], place

    def test_key_never_goes_further(self, fleet: Fleet) -> None:
        config = self.config(fleet)
        assert 'proxy_set_header Authorization "";' in config
        [log] = re.findall(r"log_format fleet (.+?);\n", "\n".join(config) + "\n", flags=re.DOTALL)
        assert "$http_authorization" not in log
        assert "$bearer" not in log
        assert "$token" not in log
        assert "$presented_key" not in log
        # Headers of a location replace all that are set further out.
        passing = [text for text in self.text(fleet).split(" location ") if "proxy_pass" in text]
        assert len(passing) >= 5
        for text in passing:
            for header in ("Authorization", "X-Api-Key", "Origin", "Connection"):
                assert f'proxy_set_header {header} "";' in text, text

    def test_keys_file_holds_each_key_and_no_output_shows_it(self, alternative: Fleet) -> None:
        config, keys = config_files(alternative["edge"], alternative, (3, 5), [])
        values = {
            name: key.get_secret_value()
            for name, key in gateway_keys(alternative, alternative["edge"]).items()
        }
        assert list(values) == ["team-a", "team-b", "team-c", "team-d"]
        end = int(datetime(2027, 1, 31, 11, tzinfo=UTC).timestamp())
        for name, value in values.items():
            entry = f"{name}$ended_{end}" if name == "team-b" else name
            assert f'{value} "{entry}";' in lines(keys.text)
            assert value not in f"{keys!r} {config!r}"
            assert value not in config.text
        assert keys.mode == "600"

    def test_drop_in_reads_our_configuration_only(self) -> None:
        commands = [line for line in lines(dropin_file().text) if line.startswith("Exec")]
        for kind in ("ExecStartPre", "ExecStart", "ExecReload"):
            first, *ours = [line for line in commands if line.startswith(f"{kind}=")]
            assert first == f"{kind}="
            assert any(f"-c {GATEWAY_CONFIG}" in line for line in ours), kind


class TestModels:
    def test_default(self, default: Fleet) -> None:
        config = loader_config(default["gpu1"])
        assert config["api"] == "http://10.0.0.11:11434"
        assert config["limits"] == {
            "no_progress": 180.0,
            "slow_rate": 0.0,
            "slow_window": 120.0,
            "attempts": 5,
            "first_delay": 5.0,
            "longest_delay": 300.0,
            "disk_reserve": 5e9,
        }
        [model] = config["models"]
        assert (model["name"], model["source"]) == ("gpt-oss:20b", "gpt-oss:20b")
        assert (model["insecure"], model["load"], model["base"]) == (False, False, None)

    def test_declarations(self, alternative: Fleet) -> None:
        config = loader_config(alternative["gpu1"])
        declared = {model["name"]: model for model in config["models"]}
        assert declared["hf.co/team/model:Q4"]["digest"] == "cd" * 32
        assert declared["analyst:latest"]["base"] == "gpt-oss:120b"
        assert declared["analyst:latest"]["keep_alive"] == "12h"
        assert declared["analyst:latest"]["definition"] == {
            "system": "Be brief.",
            "template": "{{ .Prompt }}",
            "parameters": {"num_ctx": 48000, "temperature": 0.2, "stop": ["User:"]},
        }
        assert declared["house:latest"]["gguf"] == "/srv/house.gguf"
        assert declared["house:latest"]["sha256"] == "ef" * 32

    def test_base_that_nobody_declared_is_pulled_too(self) -> None:
        fleet = fleet_of({"gpu1": ("gpu", {
            "ollama_models": [{"name": "own", "base": "gpt-oss:20b", "load": True}]})})  # fmt: skip
        own, base = loader_config(fleet["gpu1"])["models"]
        assert (own["name"], own["keep_alive"]) == ("own:latest", -1)
        assert (base["name"], base["load"]) == ("gpt-oss:20b", False)

    @pytest.mark.parametrize(("text", "sent"), [("-1", -1), ("90", 90), ("-2h", "-2h")])
    def test_keep_alive_as_the_api_reads_it(self, text: str, sent: str | int) -> None:
        """`"-1"` as text would be refused there: a duration needs a unit."""
        assert _keep_alive(text) == sent

    @pytest.mark.parametrize(
        ("model", "registry", "name"),
        [
            ("gpt-oss:20b", None, "gpt-oss:20b"),
            ("embed", None, "embed:latest"),
            ("team/m", None, "team/m:latest"),
            ("gpt-oss:20b", "mirror:5000", "mirror:5000/library/gpt-oss:20b"),
            ("embed", "mirror:5000", "mirror:5000/library/embed:latest"),
            ("team/m:q4", "mirror", "mirror/team/m:q4"),
            ("hf.co/team/m:q4", "mirror:5000", "hf.co/team/m:q4"),
            ("host:5001/team/m", "mirror:5000", "host:5001/team/m:latest"),
        ],
    )
    def test_pull_name(self, model: str, registry: str | None, name: str) -> None:
        assert pull_name(model, registry) == name

    def test_mirror(self, alternative: Fleet) -> None:
        config = loader_config(alternative["gpu1"])
        assert config["api"] == "http://[fd00::11]:21434"
        sources = {model["name"]: model["source"] for model in config["models"]}
        assert sources == {
            "gpt-oss:120b": "mirror.internal:5000/library/gpt-oss:120b",
            "hf.co/team/model:Q4": "hf.co/team/model:Q4",
            "embed:latest": "mirror.internal:5000/library/embed:latest",
            "analyst:latest": "analyst:latest",
            "house:latest": "house:latest",
        }

    def test_only_the_mirror_is_insecure(self, alternative: Fleet) -> None:
        config = loader_config(alternative["gpu1"])
        insecure = {model["name"]: model["insecure"] for model in config["models"]}
        assert insecure == {
            "gpt-oss:120b": True,
            "hf.co/team/model:Q4": False,
            "embed:latest": True,
            "analyst:latest": False,
            "house:latest": False,
        }

    def test_configuration_is_what_the_loader_reads(self, fleet: Fleet) -> None:
        *_, loader, config, unit = models.managed_files(fleet["gpu1"])
        assert json.loads(config.text) == loader_config(fleet["gpu1"])
        assert f"ExecStart=/usr/bin/python3 {loader.path} {config.path}" in lines(unit.text)


class TestJudgedByTheirTools:
    def test_nft_takes_the_ruleset(self, fleet: Fleet, tmp_path: Path) -> None:
        for host in fleet:
            listed = self.load(tmp_path, firewall.managed_files(host, fleet)[0].text)
            assert "policy drop;" in listed
            for rule in accept_rules(host, fleet):
                # nft has its own order of words; the port and the comment stay as they are.
                kept = f'dport {rule.port} accept comment "{rule.comment}"'
                assert kept in listed, rule

    def test_nft_refuses_a_bad_rule(self, tmp_path: Path) -> None:
        template = "firewall/firewall.nft.j2"
        bad = render(template, **{**VALUES[template], "rules": ["tcp dport x accept"]})
        with pytest.raises(subprocess.CalledProcessError):
            self.load(tmp_path, bad)

    def test_ruleset_replaces_our_table_only(self, default: Fleet, tmp_path: Path) -> None:
        ruleset = firewall.managed_files(default["gpu1"], default)[0].text
        other = "table inet other { chain c { accept; }; }\n"
        listed = self.load(tmp_path, f"{other}{ruleset}{ruleset}")
        assert listed.count("policy drop;") == 1
        assert "table inet other" in listed

    def test_systemd_takes_the_units(self, fleet: Fleet, tmp_path: Path) -> None:
        gpu = fleet["gpu1"]
        files = [
            unit_file(instances_of(gpu)[0]),
            models.unit_file(gpu),
            firewall.managed_files(gpu, fleet)[1],
        ]
        for file in files:
            self.lay(tmp_path, file.staged_name, file.text)
        for file in files:
            assert self.verify(tmp_path, file.staged_name) == ""

    def test_systemd_takes_the_units_of_instances(self, tmp_path: Path) -> None:
        declared = {
            **GPU[1],
            "docker_enabled": True,
            "ollama_image": f"ollama/ollama:0.32.7@sha256:{'ab' * 32}",
            "ollama_env": {"FORMAT": "50%h of $HOME"},
            "ollama_instances": [
                {"name": "models", "port": 1, "gpus": [0]},
                {"name": "c", "port": 2, "gpus": [1], "runtime": "docker"},
            ],
        }
        gpu = fleet_of({"gpu1": ("gpu", declared)})["gpu1"]
        # What the container's unit stands on, which is not on every machine that tests.
        self.lay(tmp_path, "docker.service", "[Service]\nExecStart=/bin/true\n")
        files = [unit_file(item, ["GPU-x"]) for item in instances_of(gpu)]
        for file in [*files, models.unit_file(gpu)]:
            self.lay(tmp_path, file.staged_name, file.text.replace("/usr/bin/docker", "/bin/true"))
        for file in files:
            assert self.verify(tmp_path, file.staged_name) == ""
        assert self.verify(tmp_path, "ollama-models.service") == ""

    def test_systemd_warns_of_a_misspelt_key(self, tmp_path: Path) -> None:
        self.lay(tmp_path, "x.service", "[Service]\nExecStart=/bin/true\nProtectHum=yes\n")
        assert "Unknown key" in self.verify(tmp_path, "x.service")

    @staticmethod
    def load(directory: Path, ruleset: str) -> str:
        """What nft lists after it has loaded `ruleset` in a network namespace that ends with it."""
        path = directory / "ruleset.nft"
        path.write_text(ruleset)
        script = f"nft -f {path} && nft --stateless list ruleset"
        return subprocess.run(
            ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    @staticmethod
    def lay(directory: Path, name: str, unit: str) -> None:
        # systemd-analyze wants the programs, which this machine has no reason to have.
        programs = ((OLLAMA_BINARY, "/bin/true"), (FIREWALL_GUARD, "/bin/true"))
        for program, stand_in in programs:
            unit = unit.replace(f"={program}", f"={stand_in}")
        (directory / name).write_text(unit)

    @staticmethod
    def verify(directory: Path, name: str) -> str:
        """The complaints: a misspelt key is one, but does not make the exit status."""
        result = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", f"./{name}"],
            cwd=directory,
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"},
            check=False,
            capture_output=True,
            text=True,
        )
        return result.stdout + result.stderr
