"""Servers of a fleet on loopback, and an nginx that has only the choice between them."""

from __future__ import annotations

import http.client
import http.server
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from fleet.kit.lua import literal

ON_HOST = Path(__file__).parents[3] / "fleet/gateway/on_host"

CONFIG = """
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
user root;
daemon off;
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
worker_shutdown_timeout 3s;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_buffer_size 1m;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    lua_package_path "{directory}/?.lua;{on_host}/?.lua;;";
    lua_socket_log_errors off;
    lua_shared_dict servers 8m;
    lua_shared_dict counts 4m;
    init_by_lua_block {{
        jit.off()
        asked = dofile("{directory}/asked.lua")
        asked.init("{directory}")
    }}
    init_worker_by_lua_block {{ asked.start() }}
    upstream servers {{
        server 0.0.0.1;
        balancer_by_lua_block {{ require("gateway_route").balance() }}
        keepalive 64;
    }}
    server {{
        listen unix:{directory}/front.sock;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host localhost;
        proxy_connect_timeout 1s;
        proxy_next_upstream error timeout http_503 non_idempotent;
        proxy_next_upstream_timeout 20s;
        location /api/ {{
            access_by_lua_block {{ asked.access() }}
            header_filter_by_lua_block {{ asked.head() }}
            log_by_lua_block {{ require("gateway_route").finish() }}
            proxy_pass http://servers;
        }}
        location /call {{ content_by_lua_block {{ asked.call() }} }}
    }}
}}
"""

# Calls what the gateway calls, by name, and says what came back.
ASKED = """
local cjson = require "cjson.safe"
local M = {}
local route, lists, servers

function M.init(directory)
  local declared = dofile(directory .. "/declared.lua")
  route, lists, servers = require "gateway_route", require "gateway_lists", declared.D.servers
  require("gateway_counts").init()
  route.init(declared.D, declared.idle)
end

function M.start()
  require("gateway_counts").start()
  route.start()
end

local function allowed(list)
  if not list or list == cjson.null then return nil end
  local set = {}
  for _, name in ipairs(list) do set[require("gateway_names").plain(name)] = true end
  return set
end

local function seen(found)
  local on = {}
  for place, one in ipairs(found.on) do on[place] = { one.server.name, one.model } end
  return { model = found.model, on = on }
end

function M.call()
  ngx.req.read_body()
  local q = cjson.decode(ngx.req.get_body_data())
  if q.call == "find" then
    local found, why = route.find(q.name, q.surface or "ollama", allowed(q.allowed))
    ngx.print(cjson.encode(found and seen(found) or { why = why }))
  elseif q.call == "chosen" then
    local chosen = {}
    for number = 1, q.times do
      route.choose(route.find(q.name, q.surface or "ollama"), q.talk and q.talk .. number or nil)
      chosen[number] = { ngx.ctx.route.server.name, ngx.ctx.route.model }
      route.finish()
    end
    ngx.ctx.route = nil
    ngx.print(cjson.encode(chosen))
  elseif q.call == "counted" then
    local counted = {}
    for _, server in ipairs(servers) do
      counted[server.name] = require("gateway_counts").get("server:" .. server.name)
    end
    ngx.print(cjson.encode(counted))
  elseif q.call == "jump" then
    local now, time = ngx.now, ngx.time
    ngx.now = function() return now() + q.seconds end
    ngx.time = function() return time() + q.seconds end
    ngx.print("[]")
  elseif q.call == "cost" then
    ngx.print(cjson.encode(M.cost(q)))
  else
    local list = lists[q.call]
    local status, text
    if q.name then
      status, text = list(q.name, allowed(q.allowed))
    else
      status, text = list(allowed(q.allowed))
    end
    ngx.status = status
    ngx.print(text)
  end
end

-- Microseconds of the processor that find takes, and that choose and finish take after it.
function M.cost(q)
  local function timed(run)
    local began = os.clock()
    for turn = 1, q.times do run(turn) end
    return (os.clock() - began) / q.times * 1e6
  end
  local find = timed(function() route.find(q.name, "ollama", nil) end)
  local both = timed(function(turn)
    route.choose(route.find(q.name, "ollama", nil), q.talk and q.talk .. turn or nil)
    route.finish()
  end)
  ngx.ctx.route = nil
  return { find = find, choose = both - find }
end

function M.access()
  ngx.req.read_body()
  local found, why = route.find(ngx.var.http_x_model, ngx.var.http_x_surface or "ollama", nil)
  if not found then
    ngx.header["X-Why"] = why
    return ngx.exit(why == "down" and 503 or 404)
  end
  route.choose(found, ngx.var.http_x_talk)
end

function M.head()
  local one = ngx.ctx.route
  if one then
    ngx.header["X-Server"], ngx.header["X-Tries"] = one.server.name, one.tries
  end
end

return M
"""


def entry(name: str, **other: Any) -> dict[str, Any]:
    """One of /api/tags."""
    return {
        "name": name, "model": name, "modified_at": "2026-11-30T12:00:00.5+01:00",
        "size": 13793441244, "digest": "f" * 64,
        "details": {"parent_model": "", "format": "gguf", "families": []},
        "capabilities": [], **other,
    }  # fmt: skip


class FakeServer:
    """One that lists `models`, answers what it is told, and can be killed and come back."""

    def __init__(self, name: str, *models: str, surface: str = "ollama") -> None:
        self.name, self.surface = name, surface
        self.entries = [entry(model) for model in models]
        self.loaded: list[dict[str, Any]] = []
        self.port = 0
        self.seen: list[tuple[float, str, bytes]] = []  # when, path, body of requests but looks
        self.looks: list[float] = []  # when its models were asked for
        self.asked_ps: list[float] = []
        # To requests; None: it hangs up. A number: {} after so many seconds.
        self.answer: tuple[int, str] | float | None = (200, '{"done":true}')
        self.list_answer: tuple[int, str] | None = None  # instead of its list
        self.list_delay = 0.0  # s
        self.looking = self.most_looking = 0  # at once
        self.frozen = False  # it takes connections, and says nothing
        self.server: _Server | None = None
        self.open: set[socket.socket] = set()

    def start(self) -> None:
        self.server = _listening(self)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """As if its process ended: nobody listens, and all connections are closed."""
        assert self.server
        self.server.shutdown()
        self.server.server_close()
        self.server = None
        for one in list(self.open):
            with suppress(OSError):  # closed by the other side
                one.shutdown(socket.SHUT_RDWR)

    def declared(self, *models: str, host: str = "", **other: Any) -> dict[str, Any]:
        surfaces = {self.surface: True, **({"openai": True} if self.surface == "ollama" else {})}
        return {
            "name": self.name, "host": host or self.name, "address": "127.0.0.1",
            "port": self.port, "surfaces": surfaces,
            "models": models or [item.get("name") or item["id"] for item in self.entries],
            **other,
        }  # fmt: skip


class Backend(http.server.BaseHTTPRequestHandler):
    """What a fake server says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeServer

    def setup(self) -> None:
        super().setup()
        self.fake.open.add(self.connection)

    def finish(self) -> None:
        self.fake.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        while self.fake.frozen:
            time.sleep(0.02)
        if not self._list():
            self.fake.seen.append((time.monotonic(), self.path, body))
            self._answer(self.fake.answer)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def _list(self) -> bool:
        fake = self.fake
        lists = {
            "/api/tags": {"models": fake.entries},
            "/api/ps": {"models": fake.loaded},
            "/v1/models": {"object": "list", "data": fake.entries},
        }
        if self.path not in lists:
            return False
        (fake.asked_ps if self.path == "/api/ps" else fake.looks).append(time.monotonic())
        fake.looking += 1
        fake.most_looking = max(fake.looking, fake.most_looking)
        time.sleep(fake.list_delay)
        fake.looking -= 1
        text = json.dumps(lists[self.path], separators=(",", ":"))
        self._say(*(fake.list_answer or (200, text)))
        return True

    def _answer(self, answer: tuple[int, str] | float | None) -> None:
        if answer is None:
            self.close_connection = True
        elif isinstance(answer, tuple):
            self._say(*answer)
        else:
            time.sleep(answer)
            self._say(200, "{}")

    def _say(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    allow_reuse_address = True

    def handle_error(self, *_: object) -> None:
        """Connections end as they like here."""


def _listening(fake: FakeServer) -> _Server:
    return _Server(("127.0.0.1", fake.port), type("OfFake", (Backend,), {"fake": fake}))


class Answer(NamedTuple):
    status: int
    server: str | None
    tries: int
    text: str


class Routed:
    """An nginx that chooses between servers."""

    def __init__(self, directory: Path, nginx: subprocess.Popen[bytes]) -> None:
        self.directory, self.nginx = directory, nginx

    def _send(self, method: str, path: str, body: str, headers: Mapping[str, str]) -> Any:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(str(self.directory / "front.sock"))
            connection = http.client.HTTPConnection("localhost")
            connection.sock = link
            connection.request(method, path, body, {**headers, "Connection": "close"})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, text

    def call(self, call: str, **arguments: Any) -> tuple[int, Any]:
        """The status and the content of what a function answers."""
        status, _, text = self._send("POST", "/call", json.dumps({"call": call, **arguments}), {})
        return status, json.loads(text)

    def find(self, name: str, **arguments: Any) -> Any:
        return self.call("find", name=name, **arguments)[1]

    def text(self, call: str, **arguments: Any) -> str:
        """A list as it is sent."""
        body = json.dumps({"call": call, **arguments})
        return str(self._send("POST", "/call", body, {})[2])

    def on(self, name: str, **arguments: Any) -> set[str]:
        """The servers that `find` names, none where it finds nothing."""
        return {server for server, _ in self.find(name, **arguments).get("on", [])}

    def chosen(self, name: str, times: int, **arguments: Any) -> list[tuple[str, str]]:
        """The servers chosen for so many conversations, and by which name each is asked."""
        said = self.call("chosen", name=name, times=times, **arguments)[1]
        return [(server, model) for server, model in said]

    def ask(
        self, model: str, talk: str | None = None, body: str = "{}", surface: str = "ollama"
    ) -> Answer:
        """A request for `model`, and who answered it."""
        headers = {"X-Model": model, "X-Surface": surface, **({"X-Talk": talk} if talk else {})}
        status, head, text = self._send("POST", "/api/chat", body, headers)
        return Answer(status, head.get("x-server"), int(head.get("x-tries", 0)), text)

    def in_flight(self) -> dict[str, int]:
        """Requests by server, as they are counted."""
        return dict(self.call("counted")[1])

    def reload(self, *servers: Mapping[str, Any], **other: Any) -> None:
        declare(self.directory, *servers, **other)
        old = self._workers()
        self.nginx.send_signal(signal.SIGHUP)
        until(lambda: self._workers() and not self._workers() & old)

    def _workers(self) -> set[str]:
        path = Path(f"/proc/{self.nginx.pid}/task/{self.nginx.pid}/children")
        return set(path.read_text().split())

    def log(self) -> str:
        return (self.directory / "error.log").read_text()


def until(true: Any, seconds: float = 10) -> None:
    """Waits for something to be so, and fails when it is not in time."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not become so in time"
        time.sleep(0.01)


def declare(
    directory: Path,
    *servers: Mapping[str, Any],
    idle: tuple[str, ...] = (),
    **other: Any,
) -> None:
    """Writes down what nginx reads at its next start or reload."""
    declared = {
        "D": {"servers": servers, "aliases": {}, "fallbacks": {}, **other},
        "idle": dict.fromkeys(idle, True),
    }
    (directory / "declared.lua").write_text(f"return {literal(declared)}")


@contextmanager
def routed(
    directory: Path, *servers: Mapping[str, Any], workers: int = 1, **other: Any
) -> Iterator[Routed]:
    """An nginx in `directory` in front of the declared `servers`."""
    declare(directory, *servers, **other)
    (directory / "asked.lua").write_text(ASKED)
    config = CONFIG.format(directory=directory, on_host=ON_HOST, workers=workers)
    (directory / "nginx.conf").write_text(config)
    command = ["nginx", "-c", str(directory / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as nginx:
        try:
            until(lambda: _listens(directory / "front.sock") or nginx.poll() is not None)
            assert nginx.poll() is None, nginx.stderr and nginx.stderr.read().decode()
            yield Routed(directory, nginx)
        finally:
            nginx.terminate()
            nginx.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        return link.connect_ex(str(path)) == 0


@contextmanager
def started(*servers: FakeServer) -> Iterator[None]:
    """Servers that listen, until the end."""
    for one in servers:
        one.start()
    try:
        yield
    finally:
        for one in servers:
            one.frozen = False
            if one.server:
                one.kill()
