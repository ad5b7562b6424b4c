"""The release fetcher as it is, against an HTTP server that can be cut, wrong or simple."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fleet.declare.fleet import PRODUCT_ROOT

PROGRAM = PRODUCT_ROOT / "fleet" / "kit" / "on_host" / "fetch-release"
CUT = 100_000  # bytes


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A release of about 300 kB that does not compress, packed as Ollama packs its own."""
    root = tmp_path_factory.mktemp("release")
    (root / "bin").mkdir()
    (root / "lib" / "ollama").mkdir(parents=True)
    (root / "bin" / "ollama").write_text("#!/bin/sh\necho ollama\n")
    (root / "bin" / "ollama").chmod(0o755)
    (root / "lib" / "ollama" / "libggml.so").write_bytes(os.urandom(300_000))
    packed = root.parent / f"{root.name}.tar.zst"
    subprocess.run(["tar", "--zstd", "-cf", packed, "-C", root, "bin", "lib"], check=True)
    return packed.read_bytes()


class Upstream(ThreadingHTTPServer):
    """Serves `content` at every path."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.has_ranges = True
        self.cuts: list[int] = []  # bytes after which the next GETs are cut
        self.stall = False  # send CUT bytes and then nothing, until `go_on`
        self.go_on = threading.Event()
        self.status = 200
        self.length: str | None = None  # what is told of the length instead
        self.hides_length = False  # ... at a GET too
        self.gets: list[str | None] = []  # the Range of each GET

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/ollama-linux-amd64.tar.zst"


class _Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_HEAD(self) -> None:
        self.send_response(self.server.status)
        length = self.server.length
        self.send_header(
            "Content-Length", str(len(self.server.content)) if length is None else length
        )
        self.end_headers()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.gets.append(wanted)
        content, status, headers = self.server.content, self.server.status, {}
        if wanted and self.server.has_ranges and status == 200:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(content):
                self.send_error(416)
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not self.server.hides_length:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(content)
        if self.server.stall:
            cut = CUT
        self.wfile.write(content[:cut])
        self.wfile.flush()
        if self.server.stall:
            self.server.go_on.wait(20)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def upstream(tarball: bytes) -> Iterator[Upstream]:
    server = Upstream(tarball)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Fetcher:
    """Runs of the program for one directory."""

    def __init__(self, upstream: Upstream, directory: Path) -> None:
        self.upstream, self.directory = upstream, directory
        self.sha256 = hashlib.sha256(upstream.content).hexdigest()
        self.part = Path(f"{directory}.part")
        self.runtime = directory.parents[2] / "run"

    @property
    def command(self) -> list[str]:
        return [str(PROGRAM), self.upstream.url, self.sha256, str(self.directory)]

    def run(self) -> subprocess.CompletedProcess[str]:
        self.runtime.mkdir(exist_ok=True)
        return subprocess.run(
            self.command, check=False, capture_output=True, text=True, timeout=20,
            env={**os.environ, "RUNTIME_DIRECTORY": str(self.runtime)},
        )  # fmt: skip

    @property
    def total(self) -> str:
        """The length of the tarball, as a deploy reads it."""
        return (self.runtime / "total").read_text().strip()

    def assert_installed(self) -> None:
        """The release is there, complete, and nothing is left beside it."""
        output = subprocess.run(
            [self.directory / "bin" / "ollama"], check=True, capture_output=True, text=True
        ).stdout
        assert output == "ollama\n"
        assert (self.directory / "lib/ollama/libggml.so").stat().st_size == 300_000
        assert (self.directory / ".sha256").read_text().strip() == self.sha256
        assert list(self.directory.parent.iterdir()) == [self.directory]


@pytest.fixture
def fetcher(upstream: Upstream, tmp_path: Path) -> Fetcher:
    return Fetcher(upstream, tmp_path / "opt" / "ollama" / "1.0.0")


@pytest.fixture
def no_pauses(tools: Path) -> None:
    """Attempts follow each other at once."""
    tool(tools, "sleep", "")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that come before all others."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    return path


def tool(tools: Path, name: str, script: str) -> None:
    (tools / name).write_text(f"#!/bin/sh\n{script}\n")
    (tools / name).chmod(0o755)


def has_free(tools: Path, *counts: int) -> None:
    """Have `stat -f` tell of so many bytes, at each question the next and in the end the last."""
    (tools / "free").write_text("\n".join(map(str, counts)) + "\n")
    tool(
        tools, "stat",
        f"""[ "$1" = -f ] || exec /usr/bin/stat "$@"
        head -n 1 {tools}/free
        [ "$(wc -l <{tools}/free)" = 1 ] || sed -i 1d {tools}/free""",
    )  # fmt: skip


def test_fresh(fetcher: Fetcher) -> None:
    result = fetcher.run()
    assert (result.returncode, result.stderr) == (0, "")
    fetcher.assert_installed()
    assert fetcher.upstream.gets == [None]


@pytest.mark.usefixtures("no_pauses")
class TestCut:
    def test_goes_on_by_itself_where_it_was_cut(self, fetcher: Fetcher) -> None:
        fetcher.upstream.cuts = [CUT, CUT // 2, 0]
        assert fetcher.run().returncode == 0
        fetcher.assert_installed()
        more = f"bytes={CUT + CUT // 2}-"
        assert fetcher.upstream.gets == [None, f"bytes={CUT}-", more, more]

    def test_ten_attempts_in_vain_keep_what_came_and_say_so(self, fetcher: Fetcher) -> None:
        fetcher.upstream.cuts = [CUT, *[0] * 10]
        result = fetcher.run()
        assert result.returncode == 18
        assert "curl stopped with 18; run the deploy again to resume" in result.stderr
        assert not fetcher.directory.exists()
        assert fetcher.part.read_bytes() == fetcher.upstream.content[:CUT]
        assert fetcher.run().returncode == 0
        fetcher.assert_installed()
        assert fetcher.upstream.gets[-1] == f"bytes={CUT}-"

    def test_server_without_ranges_starts_again(self, fetcher: Fetcher) -> None:
        """No half is ever glued to a whole."""
        fetcher.upstream.has_ranges = False
        fetcher.upstream.cuts = [CUT]
        assert fetcher.run().returncode == 0
        fetcher.assert_installed()

    def test_server_without_ranges_that_always_cuts_comes_to_an_end(self, fetcher: Fetcher) -> None:
        fetcher.upstream.has_ranges = False
        fetcher.upstream.cuts = [CUT] * 40
        assert fetcher.run().returncode in (18, 33)
        assert len(fetcher.upstream.gets) < 20

    def test_part_longer_than_the_release_is_thrown_away(self, fetcher: Fetcher) -> None:
        fetcher.part.parent.mkdir(parents=True)
        fetcher.part.write_bytes(fetcher.upstream.content + b"more")
        assert fetcher.run().returncode == 0
        fetcher.assert_installed()

    def test_passing_error_of_the_server_keeps_what_came(self, fetcher: Fetcher) -> None:
        fetcher.upstream.cuts = [CUT, *[0] * 10]
        fetcher.run()
        fetcher.upstream.status = 503
        assert fetcher.run().returncode == 22
        assert fetcher.part.stat().st_size == CUT

    def test_missing_release_says_so_at_once(self, fetcher: Fetcher) -> None:
        fetcher.upstream.status = 404
        result = fetcher.run()
        assert result.returncode == 1
        assert f"{fetcher.upstream.url}: the server says 404" in result.stderr
        assert not fetcher.directory.exists()
        assert len(fetcher.upstream.gets) == 1

    @pytest.mark.parametrize("length", ["many", "-1", "9" * 30, ""])
    def test_length_that_is_none_is_not_believed(self, fetcher: Fetcher, length: str) -> None:
        fetcher.upstream.length = length
        assert fetcher.run().returncode == 0
        assert fetcher.total == "0"


class TestRoom:
    """What does not fit is refused, and leaves the disk as it was."""

    RESERVE = 1_000_000_000

    def test_tarball_that_does_not_fit_is_not_fetched(self, fetcher: Fetcher, tools: Path) -> None:
        has_free(tools, self.RESERVE + len(fetcher.upstream.content))
        result = fetcher.run()
        assert result.returncode == 1
        assert "needs at least 0 MB and a reserve of 1000 MB, but 1000 MB are free" in result.stderr
        assert fetcher.upstream.gets == []
        assert list(fetcher.directory.parent.iterdir()) == []

    def test_release_that_does_not_fit_is_not_unpacked(self, fetcher: Fetcher, tools: Path) -> None:
        (fetcher.directory / "bin").mkdir(parents=True)
        has_free(tools, *[self.RESERVE + 1_000_000] * 2, self.RESERVE + 200_000)
        result = fetcher.run()
        assert result.returncode == 1
        assert "nothing was installed" in result.stderr
        assert list(fetcher.directory.parent.iterdir()) == [fetcher.directory]
        assert list(fetcher.directory.iterdir()) == [fetcher.directory / "bin"]

    def test_answer_without_end_stops_at_the_reserve(self, fetcher: Fetcher, tools: Path) -> None:
        fetcher.upstream.length = ""
        fetcher.upstream.hides_length = True
        fetcher.upstream.content *= 10
        has_free(tools, self.RESERVE + 1_000_000)
        result = fetcher.run()
        assert result.returncode == 1
        assert "leaves less than 1000 MB free" in result.stderr
        assert list(fetcher.directory.parent.iterdir()) == []

    def test_unpacking_that_fails_leaves_nothing(self, fetcher: Fetcher, tools: Path) -> None:
        tool(tools, "tar", 'case "$*" in *-xf*) exit 2;; esac; exec /usr/bin/tar "$@"')
        result = fetcher.run()
        assert (result.returncode, "cannot be unpacked" in result.stderr) == (1, True)
        assert list(fetcher.directory.parent.iterdir()) == []

    def test_what_other_runs_left_goes(self, fetcher: Fetcher) -> None:
        """A version that nobody wants any more was cut off."""
        root = fetcher.directory.parent
        root.mkdir(parents=True)
        (root / "0.9.0.part").write_bytes(b"x")
        (root / "0.9.0.total").write_bytes(b"x")
        (root / "0.9.0.new" / "bin").mkdir(parents=True)
        (root / "0.8.0").mkdir()
        (root / "current").symlink_to(root / "0.8.0")
        assert fetcher.run().returncode == 0
        assert {path.name for path in root.iterdir()} == {"0.8.0", "1.0.0", "current"}


class TestWrongChecksum:
    @pytest.fixture
    def wrong(self, fetcher: Fetcher) -> Fetcher:
        fetcher.sha256 = "0" * 64
        return fetcher

    def test_says_expected_and_actual(self, wrong: Fetcher) -> None:
        result = wrong.run()
        actual = hashlib.sha256(wrong.upstream.content).hexdigest()
        assert result.returncode == 1
        assert result.stderr == (
            f"{wrong.upstream.url}: SHA-256 expected {'0' * 64}, actual {actual}; "
            "nothing was installed\n"
        )

    def test_changes_nothing(self, wrong: Fetcher) -> None:
        """The release that was there stays, to the last byte."""
        (wrong.directory / "bin").mkdir(parents=True)
        (wrong.directory / "bin" / "ollama").write_text("the old one")
        (wrong.directory / ".sha256").write_text("old")
        wrong.run()
        assert (wrong.directory / "bin" / "ollama").read_text() == "the old one"
        assert (wrong.directory / ".sha256").read_text() == "old"
        assert not wrong.part.exists()

    def test_right_checksum_the_next_time(self, wrong: Fetcher) -> None:
        wrong.run()
        wrong.sha256 = hashlib.sha256(wrong.upstream.content).hexdigest()
        assert wrong.run().returncode == 0
        wrong.assert_installed()


def test_complete_part_is_not_fetched_again(fetcher: Fetcher) -> None:
    fetcher.part.parent.mkdir(parents=True)
    fetcher.part.write_bytes(fetcher.upstream.content)
    assert fetcher.run().returncode == 0
    fetcher.assert_installed()
    assert fetcher.upstream.gets == []


def test_progress_can_be_read_while_it_fetches(fetcher: Fetcher) -> None:
    fetcher.upstream.stall = True
    fetcher.runtime.mkdir()
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(fetcher.runtime)}
    with subprocess.Popen(fetcher.command, start_new_session=True, env=environment) as process:
        try:
            wait_for(lambda: fetcher.part.exists() and fetcher.part.stat().st_size > 0)
            assert int(fetcher.total) == len(fetcher.upstream.content)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


class TestKilled:
    """Power lost, at the worst moments."""

    def test_while_fetching(self, fetcher: Fetcher) -> None:
        fetcher.upstream.stall = True
        with subprocess.Popen(fetcher.command, start_new_session=True) as process:
            wait_for(lambda: fetcher.part.exists() and fetcher.part.stat().st_size > CUT / 2)
            os.killpg(process.pid, signal.SIGKILL)
        assert not fetcher.directory.exists()
        came = fetcher.part.stat().st_size
        fetcher.upstream.stall = False
        assert fetcher.run().returncode == 0
        fetcher.assert_installed()
        assert fetcher.upstream.gets == [None, f"bytes={came}-"]

    @pytest.mark.parametrize("call", [1, 2])
    @pytest.mark.parametrize("step", ["tar", "sync", "rm", "mv"])
    def test_between_steps(self, fetcher: Fetcher, step: str, call: int, tools: Path) -> None:
        """Killed as it calls `step`: the directory is whole or absent, the next run mends it."""
        tool(
            tools, step,
            f"""echo >>{tools}/calls
            [ "$(wc -l <{tools}/calls)" -lt {call} ] || {{ kill -9 $PPID; exit 1; }}
            exec /usr/bin/{step} "$@\"""",
        )  # fmt: skip
        result = fetcher.run()
        (tools / step).unlink()
        if result.returncode == 0:  # it is not called so often
            fetcher.assert_installed()
            return
        # Killed with its child, or with the one that waits for it.
        assert result.returncode in (-signal.SIGKILL, 137)
        assert not fetcher.directory.exists()
        assert fetcher.run().returncode == 0
        fetcher.assert_installed()

    def test_after_the_rename(self, fetcher: Fetcher) -> None:
        """Left with the part beside the release: the next run of the same has no harm to do."""
        fetcher.run()
        fetcher.part.write_bytes(fetcher.upstream.content)
        assert fetcher.run().returncode == 0
        fetcher.assert_installed()

    def test_with_all_unpacked_nothing_is_fetched_again(
        self, fetcher: Fetcher, tools: Path
    ) -> None:
        tool(tools, "mv", "kill -9 $PPID")
        fetcher.run()
        (tools / "mv").unlink()
        fetcher.upstream.gets.clear()
        assert not fetcher.part.exists()
        assert fetcher.run().returncode == 0
        fetcher.assert_installed()
        assert fetcher.upstream.gets == []


def wait_for(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
