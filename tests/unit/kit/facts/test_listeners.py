"""Who listens on ports: asked of this machine, and read as hosts say it."""

from __future__ import annotations

import os
import socket
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from fleet.kit.facts.listeners import WHO_LISTENS, Listener, Listeners
from tests.unit.facts import ask

_LINES = """\
0.0.0.0:22|812|sshd|ssh.service||
[::]:22|812|sshd|ssh.service||
127.0.0.53%lo:53|99|systemd-resolve|systemd-resolved.service||
*:11434|4711|ollama|snap.ollama.listener.service||
[fe80::1]%eth0:80|7|nginx|nginx.service||
10.0.0.11:8480|5|docker-proxy|docker.service|dify-nginx-1|dify
0.0.0.0:2049|||||
"""


def test_own_socket_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        [found] = [item for item in ask(Listeners()) if item.port == port]
    assert found.address == ip_address("127.0.0.1")
    assert found.pid == str(os.getpid())
    assert found.program


def test_read() -> None:
    ssh, _, local, snap, scoped, contained, kernel = Listeners().process(_LINES.splitlines())
    assert ssh == Listener(ip_address("0.0.0.0"), 22, "812", "sshd", "ssh.service")
    assert local.address == ip_address("127.0.0.53")
    assert (snap.address, str(snap)) == (
        None,
        "ollama (process 4711 of snap.ollama.listener.service)",
    )
    assert scoped.address == ip_address("fe80::1")
    assert (str(contained), contained.holders) == (
        "the container dify-nginx-1",
        ("dify-nginx-1", "dify"),
    )
    assert (str(kernel), kernel.holders) == ("the kernel", ())


@pytest.mark.parametrize(
    ("listens", "wanted", "is_in_the_way"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.1", False),
        ("0.0.0.0", "10.0.0.1", True),
        ("10.0.0.1", "0.0.0.0", True),
        ("::", "10.0.0.1", False),
        ("::", "fd00::1", True),
        ("fd00::1", "::", True),
        (None, "10.0.0.1", True),
        (None, "::", True),
    ],
)
def test_in_the_way(listens: str | None, wanted: str, is_in_the_way: bool) -> None:
    listener = Listener(ip_address(listens) if listens else None, 80)
    assert listener.is_in_the_way(wanted, 80) is is_in_the_way
    assert not listener.is_in_the_way(wanted, 81)


def test_port_of_a_container_is_docked_to_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docker-proxy listens for all of them, in Docker's own unit."""
    line = 'LISTEN 0 4096 0.0.0.0:80 0.0.0.0:* users:(("docker-proxy",pid=1,fd=7))'
    for name, says in {"ss": line, "docker": "web|shop"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = subprocess.run(
        ["sh", "-c", WHO_LISTENS], capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("0.0.0.0:80|1|docker-proxy|")
    assert said.endswith("|web|shop\n")
