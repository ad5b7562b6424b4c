"""The programs that meter, in an nginx of their own before a backend that says what is wanted."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fleet.gateway

PROGRAMS = Path(fleet.gateway.__file__).parent / "on_host"

_CONFIG = """
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
user www-data;
worker_processes {workers};
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
thread_pool store threads=1;
events {{ worker_connections 512; }}
http {{
    lua_package_path "{directory}/programs/?.lua;;";
    lua_shared_dict usage {memory};
    client_body_temp_path {directory}/temporary/body;
    proxy_temp_path {directory}/temporary/proxy;
    fastcgi_temp_path {directory}/temporary/fastcgi;
    uwsgi_temp_path {directory}/temporary/uwsgi;
    scgi_temp_path {directory}/temporary/scgi;
    init_by_lua_block {{
        jit.off()
        local clock = io.open("{directory}/clock")
        if clock then
            -- Seconds by which this nginx's clock is wrong.
            local shift, time = clock:read("*n"), ngx.time
            ngx.time = function() return time() + shift end
        end
        usage = require "gateway_usage"
        store = require "gateway_store"
    }}
    init_worker_by_lua_block {{ store.start("{directory}/state") }}
    exit_worker_by_lua_block {{ store.stop() }}
    log_format metered escape=json '{{"call":"$call","status":$status,'
        '"prompt_tokens":$prompt_tokens,"cached_tokens":$cached_tokens,'
        '"completion_tokens":$completion_tokens,'
        '"estimated":$tokens_estimated,"first_token":$first_token,"tokens_per_second":$token_rate}}';
    proxy_buffering off;
    proxy_http_version 1.1;
    client_body_buffer_size 4m;
    client_max_body_size 8m;
    server {{
        listen unix:{directory}/gateway.sock;
        location = /do {{
            client_body_in_single_buffer on;
            content_by_lua_block {{
                ngx.req.read_body()
                local result = {{ assert(loadstring(ngx.req.get_body_data()))() }}
                ngx.print(require("cjson").encode(result))
            }}
        }}
        location ~ ^/(?<call>.+)$ {{
            access_log {directory}/metered.log metered;
            set $prompt_tokens null;
            set $cached_tokens null;
            set $completion_tokens null;
            set $tokens_estimated null;
            set $first_token null;
            set $token_rate null;
            set $answered_by "";
            access_by_lua_block {{
                ngx.req.read_body()
                local judged = require("cjson").decode(ngx.var.http_x_judged or "{{}}")
                if ngx.var.http_x_asks then usage.edits(ngx.var.call, judged) end
                usage.begin(ngx.var.call, judged)
            }}
            header_filter_by_lua_block {{ if ngx.ctx.usage then usage.head(ngx.ctx.usage) end }}
            body_filter_by_lua_block {{ if ngx.ctx.usage then usage.body(ngx.ctx.usage) end }}
            log_by_lua_block {{
                local use, model = ngx.ctx.usage, ngx.var.http_x_model or "tiny:latest"
                if use then usage.finish(use, "team", model, "gpu1") end
            }}
            proxy_pass http://unix:{directory}/backend.sock:/$call;
        }}
    }}
}}
"""


@dataclass
class Answer:
    """What the backend says: `parts` one by one, `pause` seconds apart.

    `breaks`: it ends the connection without saying that the answer is whole. `before` seconds pass
    before its head.
    """

    kind: str
    parts: Sequence[bytes]
    status: int = 200
    pause: float = 0.0
    before: float = 0.0
    breaks: bool = False


@dataclass
class Metering:
    """An nginx, its folder, and what its backend answers next."""

    directory: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    nginx: subprocess.Popen[bytes] | None = None
    number: int = 0

    def ask(
        self, call: str, answer: Answer, body: bytes = b"{}", headers: Mapping[str, str] = {}
    ) -> bytes:
        """What a client gets of `answer`."""
        connection = self.connect(call, answer, body, headers)
        try:
            return connection.getresponse().read()
        except http.client.IncompleteRead as error:
            return error.partial
        finally:
            connection.close()

    def connect(
        self, call: str, answer: Answer, body: bytes, headers: Mapping[str, str] = {}
    ) -> http.client.HTTPConnection:
        """A connection on which `call` has been asked."""
        self.number += 1
        name = str(self.number)
        self.answers[name] = answer
        connection = Unix(self.directory / "gateway.sock")
        sent = {f"x-{key}": value for key, value in headers.items()}
        connection.request("POST", f"/{call}", body, {"x-answer": name, **sent})
        return connection

    def do(self, code: str) -> Any:
        """What Lua `code` returns, as a list."""
        connection = Unix(self.directory / "gateway.sock")
        try:
            connection.request("POST", "/do", code)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, self.errors()
        return json.loads(text)

    def log(self, number: int) -> list[dict[str, Any]]:
        """The access log, once it has `number` lines."""
        end = time.monotonic() + 10
        while True:
            path = self.directory / "metered.log"
            text = path.read_text() if path.exists() else ""
            # What is being written has no end yet.
            lines = text[: text.rfind("\n") + 1].splitlines()
            if len(lines) >= number:
                return [json.loads(line) for line in lines]
            assert time.monotonic() < end, (number, lines[-2:], self.errors())
            time.sleep(0.01)

    def last(self) -> dict[str, Any]:
        """The log's entry of the request that was made last."""
        return self.log(self.number)[-1]

    def errors(self) -> str:
        return (self.directory / "error.log").read_text()

    def start(self) -> None:
        (self.directory / "gateway.sock").unlink(missing_ok=True)
        command = ["nginx", "-c", str(self.directory / "nginx.conf")]
        with (self.directory / "stderr").open("wb") as told:
            self.nginx = subprocess.Popen(command, stderr=told)
        while True:
            try:
                self.do("return 1")
            except (FileNotFoundError, ConnectionRefusedError):
                assert self.nginx.poll() is None, (self.directory / "stderr").read_text()
                time.sleep(0.01)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End nginx; SIGKILL ends all of its processes at once."""
        assert self.nginx
        if how == signal.SIGKILL:
            master = self.nginx.pid
            workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
            for pid in (master, *map(int, workers)):
                os.kill(pid, how)
        else:
            self.nginx.send_signal(how)
        self.nginx.wait()

    def reload(self) -> None:
        assert self.nginx
        self.nginx.send_signal(signal.SIGHUP)

    def kept(self, day: str) -> dict[str, Any]:
        """A day's file; {} where there is none."""
        path = self.directory / "state" / "usage" / f"{day}.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found


@contextmanager
def metering(
    directory: Path, workers: int = 1, memory: str = "4m", starts: bool = True
) -> Iterator[Metering]:
    """Such an nginx in `directory`, whose path must be short enough for sockets."""
    shown = Metering(directory)
    for folder in (directory, directory / "temporary", directory / "state"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
    shutil.copytree(PROGRAMS, directory / "programs")
    config = _CONFIG.format(directory=directory, workers=workers, memory=memory)
    (directory / "nginx.conf").write_text(config)
    server = _backend(shown)
    try:
        if starts:
            shown.start()
        yield shown
    finally:
        if shown.nginx and shown.nginx.poll() is None:
            shown.stop()
        server.close()


class Unix(http.client.HTTPConnection):
    """A connection to a socket file."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        try:
            self.sock.connect(str(self.path))
        except OSError:
            self.sock.close()
            raise


def _backend(shown: Metering) -> socket.socket:
    path = shown.directory / "backend.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(64)
    path.chmod(0o777)

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(shown, client), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return server


def _serve(shown: Metering, client: socket.socket) -> None:
    with client, suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        text, _, body = head.partition(b"\r\n\r\n")
        lines = text.decode().lower().split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines if ": " in line)
        left = int(headers.get("content-length", 0)) - len(body)
        while left > 0:
            left -= len(client.recv(65536))
        answer = shown.answers[headers["x-answer"]]
        time.sleep(answer.before)
        client.sendall(
            f"HTTP/1.1 {answer.status} Told\r\nContent-Type: {answer.kind}\r\n"
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
        )
        for part in answer.parts:
            if part:
                client.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            time.sleep(answer.pause)
        if not answer.breaks:
            client.sendall(b"0\r\n\r\n")
