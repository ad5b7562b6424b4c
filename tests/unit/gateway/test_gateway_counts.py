"""What is in flight is counted over all workers, whatever becomes of one of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.declare.fleet import PRODUCT_ROOT

PROGRAMS = PRODUCT_ROOT / "fleet" / "gateway" / "on_host"
WORKERS = 3
CONFIG = """
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ }}
http {{
    access_log off;
    lua_http10_buffering off;
    lua_check_client_abort on;
    lua_package_path "{programs}/?.lua;;";
    lua_shared_dict counts 1m;
    init_by_lua_block {{
        jit.off()
        counts = require "gateway_counts"
        counts.init()
    }}
    init_worker_by_lua_block {{ counts.start() }}
    server {{
        listen unix:{directory}/nginx.sock;
        location / {{
            content_by_lua_block {{
                local name = ngx.var.arg_name
                if ngx.var.uri == "/get" then
                    local rows = name == "rows" and ngx.shared.counts:get(name)
                    return ngx.print(rows or counts.get(name))
                end
                counts.add(name, 1)
                ngx.print(ngx.worker.pid())
                ngx.flush(true)
                ngx.sleep(tonumber(ngx.var.arg_seconds))
            }}
            log_by_lua_block {{
                if ngx.var.uri ~= "/get" then counts.add(ngx.var.arg_name, -1) end
            }}
        }}
    }}
}}
"""


class Counting:
    """An nginx of several workers that counts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clients: list[socket.socket] = []

    def _ask(self, path: str) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.settimeout(10)
        client.connect(str(self.directory / "nginx.sock"))
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return client

    def get(self, name: str = "key:a") -> set[int]:
        """What any worker says."""
        found = set()
        for _ in range(4 * WORKERS):
            with self._ask(f"/get?name={name}") as client:
                found.add(int(b"".join(iter(lambda: client.recv(4096), b"")).split()[-1]))
        return found

    def hold(self, seconds: float, name: str = "key:a") -> tuple[socket.socket, int]:
        """A request that lasts, and the PID of the worker that has it."""
        client, text = self._ask(f"/hold?name={name}&seconds={seconds}"), b""
        while not text.partition(b"\r\n\r\n")[2]:
            text += client.recv(4096)
        return client, int(text.split()[-1])

    def close(self) -> None:
        """End all that is held."""
        for client in self.clients:
            client.close()

    def signal(self, number: signal.Signals) -> None:
        """Of the master."""
        os.kill(int((self.directory / "nginx.pid").read_text()), number)


@contextmanager
def _counting(directory: Path) -> Iterator[Counting]:
    directory.chmod(0o755)
    config = CONFIG.format(directory=directory, programs=PROGRAMS, workers=WORKERS)
    (directory / "nginx.conf").write_text(config)
    command = ["nginx", "-c", str(directory / "nginx.conf"), "-g", "daemon off;"]
    with subprocess.Popen(command) as nginx:
        counting = Counting(directory)
        try:
            _until(lambda: (directory / "nginx.sock").exists() and counting.get() == {0})
            yield counting
        finally:
            counting.close()
            nginx.terminate()
            nginx.wait()


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_every_worker_knows_the_sum(tmp_path: Path) -> None:
    with _counting(tmp_path) as counting:
        held = [counting.hold(60) for _ in range(12)]
        counting.hold(60, "key:b")
        assert len({pid for _, pid in held}) > 1
        assert counting.get() == {12}
        assert counting.get("key:b") == {1}
        for client, _ in held[:5]:
            client.close()
        _until(lambda: counting.get() == {7})


def test_what_a_worker_had_goes_with_it(tmp_path: Path) -> None:
    with _counting(tmp_path) as counting:
        held = [counting.hold(60) for _ in range(12)]
        for _ in range(3):
            lost = held[0][1]
            left = [item for item in held if item[1] != lost]
            os.kill(lost, signal.SIGKILL)
            _until(lambda left=left: counting.get() == {len(left)})
            held = [*left, *(counting.hold(60) for _ in range(3))]
            assert counting.get() == {len(held)}


def test_a_reload_forgets_nothing(tmp_path: Path) -> None:
    """... and what ends in a worker of before is counted off in those of after."""
    with _counting(tmp_path) as counting:
        before = [counting.hold(3) for _ in range(6)]
        old = {pid for _, pid in before}
        counting.signal(signal.SIGHUP)
        _until(lambda: counting.hold(0)[1] not in old)
        after = [counting.hold(60) for _ in range(2)]
        assert counting.get() == {8}
        _until(lambda: counting.get() == {2})
        assert all(pid not in old for _, pid in after)


def test_many_reloads_take_no_more_rows(tmp_path: Path) -> None:
    with _counting(tmp_path) as counting:
        for _ in range(8):
            old = counting.hold(0)[1]
            counting.signal(signal.SIGHUP)
            _until(lambda old=old: counting.hold(0)[1] != old)
        counting.hold(60)
        _until(lambda: counting.get() == {1})
        # Those of one reload, and of one that came before they had all ended.
        assert max(counting.get("rows")) <= 3 * WORKERS
