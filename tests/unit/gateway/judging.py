"""The gateway's programs that read a request, alone in an nginx: what they make of a text."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.gateway.fields import as_lua
from tests.unit.gateway.running import Connection

PROGRAMS = Path(__file__).parents[3] / "fleet" / "gateway" / "on_host"
# Small parts, so that their borders are everywhere.
_CONF = """
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
worker_processes 1;
events {{ }}
http {{
    access_log off;
    lua_package_path "{programs}/?.lua;{directory}/?.lua;;";
    init_by_lua_block {{ jit.off() judging = require "judging" }}
    client_body_temp_path {directory}/bodies;
    client_max_body_size 0;
    client_body_buffer_size 64m;
    keepalive_requests 1000000;
    server {{
        listen unix:{directory}/judging.sock;
        location / {{ content_by_lua_block {{ judging.answer() }} }}
    }}
}}
"""
_LUA = """
local cjson = require "cjson"
local edit = require "gateway_edit"
local fields = require "gateway_fields"
local judge = require "gateway_judge"
local names = require "gateway_names"

local M = {}

local function parts(text, size)
  local at = 1
  return function()
    local part = text:sub(at, at + size - 1)
    at = at + size
    return part ~= "" and part or nil
  end
end

local function all(next)
  local made = {}
  for part in next do
    assert(part ~= "")
    made[#made + 1] = part
  end
  return table.concat(made)
end

-- Counts pauses, and tells the longest time of the processor between two.
local function watch()
  local seen, last = { pauses = 0, longest = 0 }, os.clock()
  return function()
    local now = os.clock()
    seen.pauses, seen.longest, last = seen.pauses + 1, math.max(seen.longest, now - last), now
  end, seen
end

local function edited(text, size, edits, pause)
  return ngx.encode_base64(all(edit.apply(parts(text, size), edits, pause)))
end

local calls = {}

function calls.judge(text, asked)
  collectgarbage() -- what the text before has left is not of this one
  local pause, seen = watch()
  local judged = judge.judge(parts(text, asked.size), fields[asked.call], asked.way, pause)
  judged.talk = judged.talk and ngx.encode_base64(judged.talk)
  if not judged.verdict then
    judged.edited = edited(text, asked.size, judged.edits, pause)
  end
  judged.pauses, judged.longest = seen.pauses, seen.longest
  return judged
end

function calls.edit(text, asked)
  local pause, seen = watch()
  return { edited = edited(text, asked.size, asked.edits, pause), pauses = seen.pauses }
end

function calls.plain(text)
  local found = {}
  for name in text:gmatch("([^\\n]*)\\n") do
    found[#found + 1] = names.plain(name) or false
  end
  return { plain = found }
end

function M.answer()
  ngx.req.read_body()
  local asked = cjson.decode(ngx.req.get_headers().asked)
  local done, made = pcall(calls[asked["do"]], ngx.req.get_body_data() or "", asked)
  ngx.print(cjson.encode(done and made or { broke = tostring(made) }))
end

return M
"""


@dataclass
class Judged:
    """What was made of a text, as gateway_judge has it, and the text after its edits.

    `pauses`, and `longest`: seconds of the processor between two of them.
    """

    verdict: dict[str, str] | None = None
    model: str | None = None
    stream: bool | None = None
    ignored: list[str] = field(default_factory=list)
    edits: list[list[Any]] = field(default_factory=list)
    places: dict[str, Any] = field(default_factory=dict)
    talk: bytes | None = None
    edited: bytes | None = None
    blobs: int = 0
    pauses: int = 0
    longest: float = 0


class Judging:
    """An nginx that judges what it is sent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._connection = Connection(directory / "judging.sock")

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def judge(
        self, body: Any, call: str = "api/chat", way: str = "ignore", size: int = 65536
    ) -> Judged:
        """`body` (bytes and text as they are, anything else as JSON), in parts of `size` bytes."""
        made = self._ask(as_bytes(body), {"do": "judge", "call": call, "way": way, "size": size})
        for name in ("ignored", "edits"):
            # An empty table of Lua has no form of its own.
            made[name] = made[name] or []
        for name in ("talk", "edited"):
            made[name] = base64.b64decode(made[name]) if name in made else None
        return Judged(**made)

    def edit(self, text: bytes, edits: list[tuple[int, int, str]], size: int) -> tuple[bytes, int]:
        """`text`, in parts of `size` bytes, with `edits` made; and the pauses that were made."""
        made = self._ask(text, {"do": "edit", "edits": edits, "size": size})
        return base64.b64decode(made["edited"]), made["pauses"]

    def plain(self, names: list[str]) -> list[str | None]:
        """gateway_names.plain of each; none may have a line's end in it."""
        text = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        return [name or None for name in self._ask(text, {"do": "plain"})["plain"]]

    def _ask(self, body: bytes, asked: dict[str, Any]) -> dict[str, Any]:
        self._connection.request("POST", "/", body, {"asked": json.dumps(asked)})
        made: dict[str, Any] = json.loads(
            self._connection.getresponse().read().decode("utf-8", "surrogateescape")
        )
        assert "broke" not in made, made
        return made


def as_bytes(body: Any) -> bytes:
    """Bytes and text as they are, anything else as JSON."""
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body


@contextmanager
def judging(directory: Path) -> Iterator[Judging]:
    """An nginx in `directory`, whose path must be short enough for sockets."""
    directory.chmod(0o755)
    conf = directory / "nginx.conf"
    conf.write_text(_CONF.format(directory=directory, programs=PROGRAMS))
    (directory / "judging.lua").write_text(_LUA)
    (directory / "gateway_fields.lua").write_text(as_lua())
    socket = directory / "judging.sock"
    stderr = directory / "stderr"
    command = ["nginx", "-c", str(conf)]
    with stderr.open("wb") as told, subprocess.Popen(command, stderr=told) as nginx:
        try:
            while not socket.exists() or not _answers(socket):
                assert nginx.poll() is None, stderr.read_text()
                time.sleep(0.01)
            with closing(Judging(directory)) as judging:
                yield judging
        finally:
            nginx.terminate()
            nginx.wait()


def _answers(socket: Path) -> bool:
    connection: http.client.HTTPConnection = Connection(socket)
    try:
        connection.connect()
    except ConnectionRefusedError:
        return False
    connection.close()
    return True
