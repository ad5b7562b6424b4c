"""Lua that is run with the gateway's programs in an nginx of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.unit.gateway.running import Connection

PROGRAMS = Path(__file__).parents[3] / "fleet" / "gateway" / "on_host"
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
    lua_package_path "{programs}/?.lua;;";
    lua_shared_dict counts 1m;
    lua_shared_dict usage 1m;
    lua_shared_dict servers 1m;
    client_body_temp_path {directory}/bodies;
    init_by_lua_block {{ jit.off() }}
    server {{
        listen unix:{directory}/lua.sock;
        location / {{
            content_by_lua_block {{
                ngx.req.read_body()
                ngx.print(tostring(assert(loadstring(ngx.req.get_body_data()))()))
            }}
        }}
    }}
}}
"""


class Evaluated:
    """An nginx that runs what it is sent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, code: str) -> str:
        """What `code`, the body of a function, returns as a text."""
        with closing(Connection(self.directory / "lua.sock")) as connection:
            connection.request("POST", "/", code.encode())
            answer = connection.getresponse()
            said = answer.read().decode()
            assert answer.status == 200, (self.directory / "error.log").read_text()[-2000:]
            return said


@contextmanager
def evaluating(directory: Path) -> Iterator[Evaluated]:
    """Such an nginx with its files in `directory`, whose path is short enough for sockets."""
    directory.chmod(0o755)
    (directory / "nginx.conf").write_text(_CONF.format(directory=directory, programs=PROGRAMS))
    command = ["nginx", "-c", str(directory / "nginx.conf")]
    with (directory / "stderr").open("wb") as told, subprocess.Popen(command, stderr=told) as nginx:
        try:
            while not (directory / "lua.sock").exists():
                assert nginx.poll() is None, (directory / "stderr").read_text()
                time.sleep(0.01)
            yield Evaluated(directory)
        finally:
            nginx.terminate()
            nginx.wait()
