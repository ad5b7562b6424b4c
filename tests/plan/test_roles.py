"""What a host is no more is taken back, in an order that leaves nothing open or half."""

from __future__ import annotations

from functools import cache

from fleet.kit.facts.traces import Traces
from tests.fleets import GPU
from tests.plan.simulation import Plan, bare, plan

STEP = "Roles | Take back what is declared no more"


def everything(parts: list[str]) -> dict[int, list[str]]:
    """As of a host that has all that it is asked for, under the very names."""
    return {place: [parts[3 * place + 1]] for place in range(len(parts) // 3)}


@cache
def planned() -> Plan:
    return plan({"gpu1": GPU}, {"gpu1": bare() | {Traces: everything}})


def lines() -> list[str]:
    return planned().step("gpu1", STEP).lines


def place(text: str) -> int:
    found = [number for number, line in enumerate(lines()) if text in line]
    assert found, f"{text}: in no command"
    return found[0]


def test_what_runs_ends_before_its_files_go() -> None:
    assert place("systemctl stop nginx.service") < place("/etc/systemd/system/nginx.service.d/")
    assert place("systemctl stop prometheus-node-exporter.service") < place("llm-fleet-node.conf")
    assert place("docker rm --force") < place("/etc/llm-fleet/dify")


def test_keys_and_certificates_go() -> None:
    assert "rm -rf --one-file-system -- " in lines()[place("/etc/llm-fleet/gateway")]
    assert "&& systemctl daemon-reload" in lines()[place("nginx.service.d/llm-fleet.conf")]


def test_what_tells_that_something_is_ours_goes_after_it() -> None:
    assert place("unhold") < place("llm-fleet-docker.sources")
    assert place("net.ipv4.tcp_retries2=15") < place("/etc/sysctl.d/60-llm-fleet-gateway.conf")
    assert place("net.ipv4.tcp_retries2=15") < place("nft delete table inet llm_fleet_gateway")


def test_data_and_packages_stay() -> None:
    text = "\n".join(lines())
    for name in (
        "/var/log/llm-fleet",
        "/var/lib/dify",
        "volume rm",
        "apt-get",
        "groupdel llm-fleet-log",
    ):
        assert name not in text


def test_what_the_host_still_is_stays() -> None:
    text = "\n".join(lines())
    for name in ("ollama.service", "/opt/ollama", "inet llm_fleet ", "llm-fleet-firewall"):
        assert name not in text


def test_nothing_is_done_where_nothing_is() -> None:
    done = plan({"gpu1": GPU}, {"gpu1": bare()})
    assert STEP in [step.name for step in done.steps["gpu1"]]
    assert done.step("gpu1", STEP).lines == []
