"""The firewall's files, which nft and systemd judge as they will on the host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.declare.fleet import Fleet
from fleet.firewall.files import managed_files, ruleset_file, unit_files
from fleet.firewall.rules import accept_rules
from tests.unit.rendered import complaints, lay, nft_listing


def test_nft_takes_the_ruleset(fleet: Fleet, tmp_path: Path) -> None:
    for host in fleet:
        listed = nft_listing(tmp_path, managed_files(host, fleet)[0].text)
        assert "policy drop;" in listed
        for rule in accept_rules(host, fleet):
            # nft has its own order of words; the port and the comment stay as they are.
            kept = f'dport {rule.port} accept comment "{rule.comment}"'
            assert kept in listed, rule


def test_nft_refuses_a_bad_rule(default: Fleet, tmp_path: Path) -> None:
    ruleset = ruleset_file(default["gpu1"], default).text
    assert "tcp dport 22 accept" in ruleset
    with pytest.raises(subprocess.CalledProcessError):
        nft_listing(tmp_path, ruleset.replace("tcp dport 22 accept", "tcp dport x accept"))


def test_ruleset_replaces_our_table_only(default: Fleet, tmp_path: Path) -> None:
    ruleset = ruleset_file(default["gpu1"], default).text
    other = "table inet other { chain c { accept; }; }\n"
    listed = nft_listing(tmp_path, f"{other}{ruleset}{ruleset}")
    assert listed.count("chain input {") == 1
    assert "table inet other" in listed


def test_systemd_takes_the_unit(default: Fleet, tmp_path: Path) -> None:
    unit, _ = unit_files(default["gpu1"])
    lay(tmp_path, unit)
    assert complaints(tmp_path, unit.staged_name) == ""
