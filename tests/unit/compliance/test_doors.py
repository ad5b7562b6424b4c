"""Why clients do not come as far as a gateway."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.gateway import tls
from fleet.kit.secrets import SecretStore
from tests.compliance.doors import why_no_door
from tests.fleets import fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")


def why(**settings: object) -> str:
    data = {"ssh_hostname": "127.0.0.1", "gateway_listen": "any", "gateway_keys": ["a"], **settings}
    fleet = fleet_of({"box": ("gpu gateway", data)})
    return why_no_door(fleet, fleet["box"], "inventory/prod.py")


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on loopback that answers 404 to everything; its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_any_answer_is_a_door() -> None:
    with serving() as port:
        assert why(gateway_port=port, gateway_tls="off") == ""


def test_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        said = why(gateway_port=port, gateway_tls="off")
    assert said.startswith(f"http://127.0.0.1:{port}: 127.0.0.1 refuses the connection")
    assert "fleet status inventory/prod.py" in said


def test_name_without_dns() -> None:
    said = why(gateway_names=["llm.example.invalid"], gateway_tls="off", gateway_port=8434)
    assert said.startswith("http://llm.example.invalid:8434: ")
    assert "llm.example.invalid has no address" in said or "no DNS server answers" in said


def test_certificate_of_another_authority(tmp_path: Path) -> None:
    stranger = SecretStore(tmp_path / "stranger")
    certificate, key = tls.issued(stranger, "box", ["127.0.0.1"], ["127.0.0.1"])
    (tmp_path / "pem").write_text(certificate + key.get_secret_value())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    with serving(context) as port:
        said = why(gateway_port=port)
    assert said.startswith(f"https://127.0.0.1:{port}: its certificate is of an authority that is")


def test_open_to_its_own_host_only() -> None:
    assert why(gateway_listen="loopback") == ""


def test_a_clone_without_the_store_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading makes no key, so there is none to come with."""
    monkeypatch.setattr(SecretStore, "makes", property(lambda _: False))
    said = why(gateway_tls="off")
    assert "gateway_key_a: this store has no such secret" in said
