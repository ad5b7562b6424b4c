"""Dify's stand-in as plain processes over a real PostgreSQL and Redis of the machine's packages.

``python -m tests.lab.upstream.dify_rig`` runs one by itself until it is interrupted, and prints its
address, its INIT_PASSWORD and a plugin package; tests use `Rig` as tests/lab/upstream/test_dify.py
does. There is no nginx in front: one address, the API's, serves /console/api and /v1.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from lab.dify import package, vocabulary
from tests.lab.upstream.rig import free_port, reachable, until

ROOT = Path(__file__).resolve().parents[3]
PYTHON = "/usr/bin/python3"  # Debian's own, with Debian's packages, as in the images
PACKAGES = ("cryptography", "psycopg2", "redis", "requests", "yaml")
SECRET = "lab-password"
KEY = "lab-daemon-key"
INIT = "lab-init-password"
NOBODY = 65534
UNITS = Path("/etc/systemd/system")
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.conf")


def need_packages() -> None:
    """Install what is missing on this machine; no service is started by it, now or at boot."""
    names = ", ".join(PACKAGES)
    known = subprocess.run([PYTHON, "-c", f"import {names}"], capture_output=True, check=False)
    missing = [f"python3-{name}" for name in PACKAGES] if known.returncode else []
    services = []
    if not shutil.which("redis-server"):
        services.append("redis-server")
    if not _initdb():
        services.append("postgresql")
        NO_CLUSTER.parent.mkdir(exist_ok=True)
        NO_CLUSTER.write_text("create_main_cluster = false\n")
    for name in services:  # a masked unit is not started by its package
        (UNITS / f"{name}.service").symlink_to("/dev/null")
    try:
        if missing or services:
            _apt("update", "-qq")
            _apt("install", "-y", "-qq", "--no-install-recommends", *missing, *services)
    finally:
        for name in services:
            (UNITS / f"{name}.service").unlink()
    for name in services:
        subprocess.run(["systemctl", "disable", name], check=False, capture_output=True)


def _apt(*words: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", *words], env=environment, check=True, capture_output=True)


def _initdb() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def postgresql() -> Path:
    """Where PostgreSQL's programs are."""
    return _initdb()[-1].parent


@dataclass
class Rig:
    """A running Dify."""

    folder: Path
    version: str = "1.16.1"
    init_password: str = INIT
    settings: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.ports['api']}"

    def start(self) -> Rig:
        """Start everything and wait until it answers."""
        need_packages()
        for name in ("postgres", "redis", "api", "plugin-daemon", "debugging", "weaviate"):
            self.ports[name] = free_port()
        self.start_stores()
        assert self.flask("upgrade-db").returncode == 0
        for name in ("plugin-daemon", "api", "worker"):
            self.run(name)
        until(self.answers, "the API answers", 30)
        return self

    def run(self, name: str, **settings: str) -> None:
        """Start one of the program's modes: api, worker, beat, plugin-daemon or weaviate."""
        options = ["--host", "127.0.0.1", "--port", str(self.ports.get(name, 0))]
        if name == "plugin-daemon":
            options += ["--debugging-port", str(self.ports["debugging"])]
        self._spawn(name, self.command(*options, name), self.environment(name) | settings)

    def flask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`flask WORDS`, as inside the API's container."""
        return subprocess.run(
            self.command("flask", *words), env=self.environment("api"), cwd=ROOT / "lab",
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def command(self, *words: str) -> list[str]:
        """The program's command line."""
        return [PYTHON, "-m", "dify", *words]

    def environment(self, name: str) -> dict[str, str]:
        """What the release's compose file gives to a service, as far as it matters here."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "DIFY_STANDIN_VERSION": self.version,
            "INIT_PASSWORD": self.init_password,
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(self.ports["postgres"]),
            "DB_USERNAME": "postgres",
            "DB_PASSWORD": SECRET,
            "DB_DATABASE": "dify",
            "DB_PLUGIN_DATABASE": "dify_plugin",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.ports["redis"]),
            "REDIS_PASSWORD": SECRET,
            "CELERY_BROKER_URL": f"redis://:{SECRET}@127.0.0.1:{self.ports['redis']}/1",
            "OPENDAL_FS_ROOT": str(self.folder / "app/storage"),
            "PLUGIN_STORAGE_LOCAL_ROOT": str(self.folder / "plugin_daemon"),
            "PLUGIN_DAEMON_URL": f"http://127.0.0.1:{self.ports['plugin-daemon']}",
            "PLUGIN_DAEMON_KEY": KEY,
            "SERVER_KEY": KEY,
            "WEAVIATE_ENDPOINT": f"http://127.0.0.1:{self.ports['weaviate']}",
            "WEAVIATE_API_KEY": KEY,
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": KEY,
            "PERSISTENCE_DATA_PATH": str(self.folder / "weaviate"),
            "MARKETPLACE_ENABLED": "false",
            "TIKTOKEN_CACHE_DIR": str(self.tokenizer),
            "LAB_PLUGIN_INSTALL_SECONDS": "1",
            "LAB_PLUGIN_START_SECONDS": "1",
            **self.settings,
        }

    @property
    def tokenizer(self) -> Path:
        """The folder that the plugin's tokenizer is kept in, as in the daemon's image."""
        folder = self.folder / "tiktoken"
        folder.mkdir(exist_ok=True)
        (folder / vocabulary.NAME).touch()
        return folder

    def package(self, version: str = "1.0.0", *, signed: bool = True) -> bytes:
        """The Ollama plugin's package."""
        return package.make(version, signed=signed)

    def stop(self, *names: str) -> None:
        """Kill what was started, or some of it."""
        for name in names or list(self.processes):
            process = self.processes.pop(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT if name == "postgres" else signal.SIGKILL)
            process.wait()

    def log(self, name: str) -> str:
        """What a process printed."""
        return (self.folder / f"{name}.log").read_text()

    def sql(self, query: str, database: str = "dify") -> str:
        """What a query gives, in psql's unaligned form."""
        return subprocess.run(
            [postgresql() / "psql", "-At", "-h", "127.0.0.1", "-p", str(self.ports["postgres"]),
             "-U", "postgres", "-d", database, "-c", query],
            env={"PGPASSWORD": SECRET}, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip

    def start_stores(self) -> None:
        """Start PostgreSQL and Redis, the first time on an empty folder."""
        self._spawn(
            "redis",
            ["redis-server", "--port", str(self.ports["redis"]), "--bind", "127.0.0.1",
             "--requirepass", SECRET, "--save", "", "--dir", str(self.folder)],
            {"PATH": os.environ["PATH"]},
        )  # fmt: skip
        self.start_postgres()
        until(lambda: reachable(f"127.0.0.1:{self.ports['redis']}"), "Redis answers")

    def start_postgres(self) -> None:
        """Start PostgreSQL, the first time on an empty folder."""
        data, words = self.folder / "db", self.folder / "password"
        fresh = not data.exists()
        if fresh:
            data.mkdir()
            os.chown(data, NOBODY, NOBODY)
            words.write_text(SECRET)
            words.chmod(0o644)
            self._as_nobody(
                postgresql() / "initdb", "-D", data, "-U", "postgres", "--pwfile", words,
                "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8",
            )  # fmt: skip
        self._spawn(
            "postgres",
            [str(postgresql() / "postgres"), "-D", str(data), "-p", str(self.ports["postgres"]),
             "-c", "fsync=off", "-c", "unix_socket_directories=", "-h", "127.0.0.1"],
            {"PATH": os.environ["PATH"]},
            user=NOBODY,
        )  # fmt: skip
        port = str(self.ports["postgres"])
        ready = [postgresql() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
        until(lambda: not subprocess.run(ready, check=False).returncode, "PostgreSQL answers")
        if fresh:
            self.sql("CREATE DATABASE dify", "postgres")

    def _as_nobody(self, *words: Any) -> None:
        subprocess.run(
            [str(word) for word in words], user=NOBODY, group=NOBODY, extra_groups=[],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip

    def _spawn(
        self, name: str, words: list[str], environment: dict[str, str], user: int | None = None
    ) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                words, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, cwd="/" if user else ROOT / "lab", user=user, group=user,
                **({"extra_groups": []} if user else {}),
            )  # fmt: skip

    def answers(self) -> bool:
        """Whether the API does."""
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/console/api/setup", timeout=5).status_code == 200
        return False


def main() -> None:
    """Run one until it is interrupted."""
    with tempfile.TemporaryDirectory(prefix="dify-rig-") as folder:
        Path(folder).chmod(0o755)
        rig = Rig(Path(folder))
        try:
            rig.start()
            (rig.folder / "ollama.difypkg").write_bytes(rig.package())
            print(f"{rig.url} INIT_PASSWORD={INIT} {folder}/ollama.difypkg", flush=True)  # noqa: T201
            while True:
                time.sleep(60)
        except KeyboardInterrupt:
            pass
        finally:
            rig.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    main()
