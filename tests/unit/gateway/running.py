"""The gateway's own configuration in a real nginx, with a recording backend behind it."""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleet.declare.fleet import Fleet
from fleet.gateway.declared import gateway_keys
from fleet.gateway.files import config_files
from fleet.gateway.paths import GATEWAY_DIR, GATEWAY_STATE, GATEWAY_STATUS_SOCKET
from fleet.kit.paths import LIB
from tests.fleets import fleet_of

Answer = tuple[int, dict[str, str], bytes]
CHAT = {"model": "gpt-oss:20b", "messages": [{"role": "user", "content": "Hi"}]}
PLAIN = {"model": "gpt-oss:20b", "prompt": "Hi"}

# Its keys: one whose overrides are ignored, one for each other way, and admins'.
KEYS = [
    "plain",
    {"name": "strict", "overrides": "refuse"},
    {"name": "tuner", "overrides": "allow"},
    {"name": "ops", "role": "admin"},
    # A word of nginx's maps.
    {"name": "default", "role": "admin"},
]


# What the tests ask for.
MODELS = (
    "gpt-oss:20b", "m", "a", "b", "x", "large", "after:1", "inner", "old:1b",
    "hf.co/team/model_1.gguf:Q4",
)  # fmt: skip


class Running:
    """A gateway that listens on a socket file, its keys, and what its backend has received."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.fleet = _fleet(settings)
        self.keys = {
            name: key.get_secret_value()
            for name, key in gateway_keys(self.fleet, self.fleet["edge"]).items()
        }
        self.nginx: subprocess.Popen[bytes] | None = None
        self.seen: list[tuple[str, bytes]] = []
        # What each server has, and how often somebody looked.
        self.models = list(MODELS)
        self.looks = 0
        # A request has come; it is answered while `hold` is set.
        self.held, self.hold = threading.Event(), threading.Event()
        self.hold.set()
        self.headers: dict[str, str] = {}  # of the answer, beside its own
        # None: it hangs up.
        self.answer: tuple[int, str, bytes] | None = (200, "application/json", b"{}")

    def post(self, path: str, body: Any, key: str = "plain", **headers: str) -> Answer:
        """A POST of `body`: bytes and text as they are, anything else as JSON."""
        if not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        data = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
        return self.call("POST", path, key, data, headers)

    def call(
        self, method: str, path: str, key: str, body: Any = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        """A request with the key called `key`, or with that very value."""
        connection = Connection(self.directory / "gateway.sock")
        said = {"x-api-key": self.keys.get(key, key), **headers} if key else dict(headers)
        connection.request(method, path, body, said)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, content

    def raw(self, text: bytes) -> bytes:
        """What is answered to `text`, which may be no HTTP at all."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(self.directory / "gateway.sock"))
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            parts = iter(lambda: client.recv(65536), b"")
            return b"".join(parts)

    def in_flight(self) -> dict[str, int]:
        """How many requests each server has."""
        connection = Connection(self.directory / "status.sock")
        connection.request("GET", "/in-flight")
        found: dict[str, int] = json.loads(connection.getresponse().read())
        connection.close()
        return found

    def ends(self) -> None:
        """Have nginx end now, with all of its logs written."""
        assert self.nginx
        self.nginx.terminate()
        self.nginx.wait()

    def errors(self) -> str:
        """What nginx has complained of."""
        return (self.directory / "error.log").read_text()

    def log(self) -> list[dict[str, Any]]:
        """The access log's entries, all of them once nginx has ended."""
        text = (self.directory / "gateway.log").read_text()
        # What is being written has no end yet.
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _fleet(settings: Mapping[str, Any]) -> Fleet:
    edge = {
        "gateway_listen": "loopback", "gateway_tls": "off", "gateway_metrics": "off",
        "gateway_keys": KEYS, "private_address": "10.0.0.2", **settings,
    }  # fmt: skip
    gpus = {
        f"gpu{number}": (
            "gpu",
            {"private_address": f"10.0.0.{10 + number}", "ollama_listen": "private"},
        )
        for number in range(1, 4)
    }
    return fleet_of({**gpus, "edge": ("gateway", edge)})


@contextmanager
def running(
    directory: Path, secrets: Mapping[str, str] = {}, root: Path | None = None, **settings: Any
) -> Iterator[Running]:
    """A gateway with `settings`, in `directory`, whose path must be short enough for sockets.

    `secrets` are put into its store; files that settings name are relative to `root`.
    """
    store = _fleet({}).secrets
    for name, value in secrets.items():
        store.replace(name, value)
    gateway = Running(directory, **settings)
    gateway.fleet.root = root or gateway.fleet.root
    _write(gateway)
    server = _backend(gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = ["nginx", "-c", str(directory / "nginx.conf"), "-g", "daemon off;"]
    with (directory / "stderr").open("wb") as told, subprocess.Popen(command, stderr=told) as nginx:
        try:
            gateway.nginx = nginx
            _wait(gateway, nginx)
            yield gateway
        finally:
            nginx.terminate()
            nginx.wait()
            server.shutdown()
            server.server_close()


def _write(gateway: Running) -> None:
    directory = gateway.directory
    directory.chmod(0o755)  # whom nginx's workers run as reads and writes below
    (directory / "temporary").mkdir()
    (directory / "temporary").chmod(0o777)
    (directory / "state").mkdir()
    (directory / "state").chmod(0o777)
    temporary = "".join(
        f"{kind}_temp_path {directory}/temporary/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    changes = {
        LIB: str(directory),
        "/run/nginx.pid": f"{directory}/nginx.pid",
        "/var/log/llm-fleet/": f"{directory}/",
        "listen 127.0.0.1:8434": f"listen unix:{directory}/gateway.sock",
        **{f'"10.0.0.{number}"': f'"unix:{directory}/backend.sock"' for number in range(11, 14)},
        GATEWAY_DIR: str(directory),
        GATEWAY_STATE: f"{directory}/state",
        GATEWAY_STATUS_SOCKET: f"{directory}/status.sock",
        "http {": f"http {{\n{temporary}",
        "worker_processes auto": "worker_processes 1",
        # A socket file is called from no address, and has no port.
        "proxy_bind 10.0.0.2;": "",
        "default 10.0.0.2;": 'default "";',
        '["calls_from"] = "10.0.0.2", ': "",
        ', ["port"] = 11434': "",
    }
    files = config_files(gateway.fleet["edge"], gateway.fleet, (3, 0), [], resolvers=("127.0.0.1",))
    for file in files:
        text = file.text
        for before, after in changes.items():
            text = text.replace(before, after)
        (directory / file.staged_name).write_text(text)


def _wait(gateway: Running, nginx: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            gateway.call("GET", "/healthz", "")
        except (FileNotFoundError, ConnectionRefusedError):
            assert nginx.poll() is None, (gateway.directory / "stderr").read_text()
            time.sleep(0.01)
        else:
            break
    while gateway.looks < sum(item.ours for item in gateway.fleet.servers()):
        time.sleep(0.01)
    time.sleep(0.1)  # until the last of them is read


class Connection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        try:
            self.sock.connect(str(self.path))
        except OSError:
            self.sock.close()
            raise


class _Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)

    def get_request(self) -> tuple[socket.socket, Any]:
        request, _ = self.socket.accept()
        return request, ("unix", 0)


def _tags(models: Sequence[str]) -> bytes:
    """What a look at a server is answered."""
    entries = [{"name": name, "model": name, "details": {}} for name in models]
    return json.dumps({"models": entries}).encode()


def _backend(gateway: Running) -> _Server:
    class Backend(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.request_version == "HTTP/1.0":
                self._say(200, "application/json", _tags(gateway.models))
                gateway.looks += 1
                return
            gateway.seen.append((self.path, body))
            gateway.held.set()
            gateway.hold.wait(30)
            if gateway.answer is None:
                self.close_connection = True
                return
            self._say(*gateway.answer, gateway.headers)

        def _say(
            self, status: int, kind: str, content: bytes, headers: Mapping[str, str] = {}
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    path = str(gateway.directory / "backend.sock")
    server = _Server(path, Backend)  # type: ignore[arg-type]
    Path(path).chmod(0o777)
    return server


def error(answer: Answer) -> Any:
    """The `error` of an answer, which is JSON and says so."""
    _, headers, body = answer
    assert headers["content-type"] == "application/json", body
    assert int(headers["content-length"]) == len(body)
    return json.loads(body)["error"]
