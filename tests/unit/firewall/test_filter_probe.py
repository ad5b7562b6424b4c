"""Other packet filters, told by what they do: the real nft, in networks of the test's own."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from fleet.firewall.facts import Closed, Filters, OtherFilters
from tests.unit.firewall.namespaces import run

SSH, GATEWAY, ANYBODY = (
    "10.0.0.2,,22,input",
    "10.0.0.2,,8434,input",
    "1.1.1.1,10.0.0.11,8434,input",
)
PUBLISHED = "10.0.0.2,,8080,forward"
BRIDGES = ["docker0", "br-x"]
SET = "set good { type ipv4_addr . inet_service; elements = { 10.0.0.2 . 8434 }; };"


def found(*rulesets: str, probes: tuple[str, ...] = (SSH, GATEWAY, ANYBODY, PUBLISHED)) -> Filters:
    """What the fact says on a host with `rulesets`."""
    command = OtherFilters().command(probes=probes, bridges=BRIDGES).get_raw_value()
    loads = [f"nft {shlex.quote(ruleset)}" for ruleset in rulesets]
    return OtherFilters().process(run("\n".join([*loads, command])))


def chain(rules: str, hook: str = "input", more: str = "") -> str:
    return f"table inet x {{ {more} chain c {{ type filter hook {hook} priority 0; {rules} }}; }}"


# What is said of it: (rules, probes that are closed, words of the rule).
CLOSED = {
    "a refusal at the end": (
        chain("ct state established accept; tcp dport 22 accept; reject;"),
        [GATEWAY, ANYBODY],
        "reject",
    ),
    "a policy": (chain("policy drop; tcp dport 22 accept;"), [GATEWAY, ANYBODY], "policy drop"),
    "in another chain": (
        f"table inet x {{ chain bad {{ meta mark 7 return; drop; }}; {chain('')[15:-2]} }}".replace(
            "priority 0; ", "priority 0; tcp dport 8434 jump bad; "
        ),
        [GATEWAY, ANYBODY],
        "bad rule drop",
    ),
    "by a map": (chain("tcp dport vmap { 22 : accept, 8434 : drop };"), [GATEWAY, ANYBODY], "vmap"),
    "by a set": (chain("ip saddr . tcp dport != @good drop;", more=SET), [SSH, ANYBODY], "@good"),
    "to containers": (
        chain("policy drop; ct state established accept;", hook="forward"),
        [PUBLISHED],
        "policy drop",
    ),
    "before routing": (
        chain("tcp dport 8434 drop;", hook="prerouting"),
        [GATEWAY, ANYBODY],
        "tcp dport 8434 drop",
    ),
    "at the card": (
        'table netdev x { chain c { type filter hook ingress device "eth0" priority 0; '
        "tcp dport 8434 drop; }; }",
        [GATEWAY, ANYBODY],
        "netdev x c",
    ),
    "the answer": (
        chain("policy drop; tcp sport 22 accept;", hook="output"),
        [GATEWAY, ANYBODY],
        "policy drop",
    ),
    "some callers only": (
        chain("ip saddr 10.0.0.0/8 tcp dport 8434 accept; tcp dport 8434 drop;"),
        [ANYBODY],
        "drop",
    ),
}


@pytest.mark.parametrize(("ruleset", "probes", "words"), CLOSED.values(), ids=CLOSED)
def test_closed(ruleset: str, probes: list[str], words: str) -> None:
    said = found(ruleset)
    assert [item.probe for item in said.closed] == probes
    assert all(words in item.rule for item in said.closed), said
    assert said.unknown == ()


HARMLESS = {
    "none": [],
    "our own": ["table inet llm_fleet { chain c { type filter hook input priority 0; drop; }; }"],
    "bans of some": [
        "table inet f2b { set bad { type ipv4_addr; elements = { 192.0.2.66 }; }; chain c { "
        "type filter hook input priority -1; ip saddr @bad tcp dport 22 reject; }; }"
    ],
    "by a mark": [chain("meta mark & 0x8000 == 0x8000 drop;")],
    "containers' own": [
        chain("policy drop; ct state established accept; ct status dnat accept;", hook="forward"),
        "table ip d { chain f { type filter hook forward priority 0; policy drop; }; chain c { "
        "type nat hook prerouting priority -100; tcp dport 8434 dnat to 172.17.0.2:80; }; }",
    ],
    "but for containers": [
        chain('policy drop; ct state established accept; oifname "br-*" accept;', hook="forward"),
        "table ip y { chain c { type nat hook prerouting priority -100; "
        "tcp dport 8080 dnat to 172.17.0.2:80; }; }",
    ],
}


@pytest.mark.parametrize("rulesets", HARMLESS.values(), ids=HARMLESS)
def test_harmless(rulesets: list[str]) -> None:
    assert found(*rulesets) == Filters()


def test_nothing_is_left_and_nothing_is_changed(tmp_path: Path) -> None:
    command = OtherFilters().command(probes=[SSH], bridges=BRIDGES).get_raw_value()
    rules = chain("tcp dport 22 drop;")
    lines = run(
        f"export TMPDIR={tmp_path}; nft {shlex.quote(rules)}\n"
        "state() { nft list ruleset; ip -4 addr; ip route; ls $TMPDIR; }\n"
        f"before=$(state); {command} >/dev/null; after=$(state)\n"
        '[ "$before" = "$after" ] && echo same'
    )
    assert lines == ["same"]


def test_what_cannot_be_tried_is_said() -> None:
    assert found(chain("drop;"), probes=("192.0.2.9,10.0.0.99,22,input",)) == Filters()
    lines = ["closed 10.0.0.2,,22 inet x c rule drop", "", "unknown nft no such thing"]
    assert OtherFilters().process(lines) == Filters(
        (Closed("10.0.0.2,,22", "inet x c rule drop"),), ("nft no such thing",)
    )
