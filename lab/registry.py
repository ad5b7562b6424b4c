"""The lab's registry: Debian's real docker-registry with the images of Dify's stack.

It stands for a mirror of Docker Hub in a network without internet: `docker_registry_mirrors` names
it, and compose files stay as they are. PostgreSQL, Redis, nginx, squid and busybox are Debian 12's;
Dify's own images, weaviate and Open WebUI are the stand-in of lab/dify. All but busybox share one
layer, which is made once with mmdebstrap; nothing of it touches the machine.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab import images, oci
from lab.dify import open_webui, vocabulary
from lab.machine import KEYRING
from lab.oci import Layer
from lab.state import LabError, run, say, timed
from lab.upstream import dify
from lab.upstream.build import key, locked, once

PORT = 5000
STANDIN = Path(__file__).resolve().parent / "dify"
RECORD = "images.json"
BASE = "bookworm"
UNUSED = 7 * 24 * 3600
PACKAGES = (
    "busybox-static", "ca-certificates", "curl", "gettext-base", "nginx-light", "postgresql-15",
    "python3", "python3-cryptography", "python3-psycopg2", "python3-redis", "python3-requests",
    "python3-yaml", "redis-server", "squid",
)  # fmt: skip
# PostgreSQL without its compiler (jit is off), what nobody reads in a container, and a certificate
# that would be another one in each build.
LEFT_OUT = (
    "usr/lib/x86_64-linux-gnu/libLLVM-14.so.1", "usr/lib/x86_64-linux-gnu/libz3.so.4",
    "usr/lib/postgresql/15/lib/bitcode", "usr/share/i18n", "usr/share/perl", "usr/share/perl5",
    "usr/lib/x86_64-linux-gnu/perl", "usr/share/squid-langpack", "usr/share/doc", "usr/share/man",
    "usr/share/locale", "usr/lib/x86_64-linux-gnu/gconv", "var/cache", "var/lib/apt",
    "etc/ssl/certs/ssl-cert-snakeoil.pem", "etc/ssl/private/ssl-cert-snakeoil.key",
    "usr/lib/x86_64-linux-gnu/libperl.so.5.36.0", "usr/share/zoneinfo/right",
    "var/log", "dev", "proc", "sys",
)  # fmt: skip
EMPTY = ("dev", "proc", "sys", "var/log/squid", "var/log/nginx", "var/cache", "app/api",
         "app/storage", "data", "run/postgresql", "var/spool/squid")  # fmt: skip
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """What an image runs, over the shared layers."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    folder: str = "/"
    user: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: str = "SIGTERM"

    def config(self) -> dict[str, Any]:
        """Docker's own names for it."""
        environment = {"PATH": PATH, "LANG": "C.UTF-8", "PYTHONPATH": "/opt/lab"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", **self.environment}
        return {
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "Entrypoint": list(self.entrypoint) or None,
            "Cmd": list(self.command) or None,
            "WorkingDir": self.folder,
            "User": self.user,
            "StopSignal": self.stop_signal,
        }


def catalogue() -> dict[str, Image]:
    """Every image by the name that the compose file has, with Docker Hub's ``library/``."""
    found = {
        "library/postgres:15-alpine": Image(
            ("/entrypoints/postgres",),
            ("postgres",),
            environment={"PATH": f"/usr/lib/postgresql/15/bin:{PATH}"},
            stop_signal="SIGINT",
        ),
        "library/redis:6-alpine": Image(("/entrypoints/redis",), ("redis-server",), "/data"),
        "library/nginx:latest": Image((), ("nginx", "-g", "daemon off;"), stop_signal="SIGQUIT"),
        "ubuntu/squid:latest": Image((), ("squid", "-N")),
        "semitechnologies/weaviate:1.27.0": _mode("weaviate"),
        "langgenius/dify-sandbox:0.2.15": _mode("sandbox"),
        f"open-webui/open-webui:v{open_webui.VERSION}": Image(
            ("python3", "-m", "dify", "open-webui"), (), "/app/backend"
        ),
        "langgenius/dify-plugin-daemon:0.6.10-local": _mode(
            "plugin-daemon", TIKTOKEN_CACHE_DIR="/app/.tiktoken"
        ),
    }
    for version in dify.VERSIONS:
        own = {"DIFY_STANDIN_VERSION": version}
        found |= {
            f"langgenius/dify-api:{version}": Image(
                ("/entrypoints/api",), (), "/app/api", "1001", own
            ),
            f"langgenius/dify-web:{version}": _mode("web", **own),
            f"langgenius/dify-agent-backend:{version}": _mode("agent-backend", **own),
            f"langgenius/dify-agent-local-sandbox:{version}": _mode("local-sandbox", **own),
        }
    return found


def _mode(mode: str, **environment: str) -> Image:
    return Image(("python3", "-m", "dify", mode), (), "/app", "", environment)


def prepare(cache: Path) -> Path:
    """Build the registry's store into *cache*, or find it there; the folder of it.

    ``images.json`` in it has each image's digest.

    Raises:
        LabError: something cannot be fetched or built.
    """
    store = cache / "dify"
    store.mkdir(parents=True, exist_ok=True)
    base = store / f"base-{_base_key()}"
    built = (
        store / f"images-{key(*_sources(), Path(__file__), Path(oci.__file__), extra=base.name)}"
    )
    if not (built / RECORD).exists():
        with locked(store / "lock"):
            once(store / "docker-registry", _fetch_registry)
            if not base.exists():
                say("Dify: building the images' base (once; about a minute)")
            with timed("Dify: the images' base is there"):
                once(base, _build_base)
            with timed(f"Dify: {len(catalogue()) + 1} images are in the registry"):
                once(built, lambda into: _fill(into, base, store))
            _forget(store, {base, built})
    os.utime(built)
    return built


def serving(store: Path, listen: str, folder: Path) -> list[str | Path]:
    """The command line that serves a store, read-only, with its configuration in `folder`."""
    return [_binary(store.parent), "serve", _configure(folder, store, listen, readonly=True)]


def _binary(store: Path) -> Path:
    return store / "docker-registry/usr/bin/docker-registry"


def _base_key() -> str:
    return key(extra="\0".join([_debian(), *PACKAGES, *LEFT_OUT, *EMPTY]))


def _debian() -> str:
    """The sources that the base is made from; empty for mmdebstrap's own."""
    mirror = images.mirror()
    return mirror.sources(BASE) if mirror else ""


def _sources() -> list[Path]:
    return [*sorted(STANDIN.glob("*.py")), *sorted((STANDIN / "images").iterdir())]


def _fetch_registry(into: Path) -> None:
    """Unpack Debian's package; installed, it would start a service on this machine."""
    for attempt in (1, 2):
        done = subprocess.run(
            ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "docker-registry"],
            cwd=into,
            capture_output=True,
            text=True,
            check=False,
        )
        if not done.returncode:
            break
        if attempt == 2:
            raise LabError(f"docker-registry cannot be downloaded: {done.stderr.strip()}")
        run(["apt-get", "update", "-qq"])
    (package,) = into.glob("*.deb")
    run(["dpkg-deb", "-x", package, into])
    package.unlink()


def _build_base(into: Path) -> None:
    """Make the layer that nearly all images share, and busybox's."""
    sources = _debian()
    (into / "sources").write_text(sources)
    (into / "options").write_text(images.apt_options())
    root = into / "root"
    cluster = "$1/etc/postgresql-common"
    run(
        [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
            *("env", f"SOURCE_DATE_EPOCH={oci.BUILT}"),
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=essential", "--format=directory"),
            f"--include={','.join(PACKAGES)}",
            f"--keyring={KEYRING}",
            f"--aptopt={into / 'options'}",
            "--setup-hook=cp -a /etc/apt/auth.conf.d /etc/apt/auth.conf $1/etc/apt/ || true",
            # Else the package makes a cluster, whose files would be in the image.
            f"--essential-hook=mkdir -p {cluster}; echo create_main_cluster=false"
            f" > {cluster}/createcluster.conf",
            *(BASE, root),
            *([into / "sources"] if sources else []),
        ]
    )
    shutil.rmtree(root / "etc/apt")
    for name in LEFT_OUT:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in EMPTY:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("var/log/squid", "var/spool/squid"):
        shutil.chown(root / name, *_owner(root, "proxy"))
    with (root / "etc/passwd").open("a") as file:
        file.write("dify:x:1001:1001::/app/api:/bin/sh\n")
    _write_layer(into, "base", oci.layer_of_tree(root, into / "base.tar.gz"))
    _write_layer(into, "busybox", _busybox(root / "bin/busybox", into))
    shutil.rmtree(root)


def _owner(root: Path, user: str) -> tuple[int, int]:
    for line in (root / "etc/passwd").read_text().splitlines():
        name, _, uid, gid, *_ = line.split(":")
        if name == user:
            return int(uid), int(gid)
    raise LabError(f"the images' base has no user {user}")


def _busybox(binary: Path, into: Path) -> Layer:
    """The binary and a link for each of its applets."""
    with tempfile.TemporaryDirectory(dir=into) as folder:
        tree = Path(folder)
        for name in ("bin", "tmp", "etc"):
            (tree / name).mkdir()
        shutil.copy(binary, tree / "bin/busybox")
        for applet in run([binary, "--list"]).split():
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
        (tree / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        return oci.layer_of_tree(tree, into / "busybox.tar.gz")


def _write_layer(into: Path, name: str, layer: Layer) -> None:
    record = {**asdict(layer), "path": layer.path.name}
    (into / f"{name}.json").write_text(json.dumps(record))


def _read_layer(base: Path, name: str) -> Layer:
    record = json.loads((base / f"{name}.json").read_text())
    return Layer(base / record["path"], record["digest"], record["diff_id"])


def _program(into: Path) -> Layer:
    """The stand-in and the entrypoints, for all images alike."""
    files: dict[str, tuple[Path | bytes, int]] = {
        f"opt/lab/dify/{path.name}": (path, 0o644) for path in sorted(STANDIN.glob("*.py"))
    }
    for path in sorted((STANDIN / "images").iterdir()):
        place = "usr/local/bin" if path.name in ("flask", "celery") else "entrypoints"
        files[f"{place}/{path.name}"] = (path, 0o755)
    files[f"app/.tiktoken/{vocabulary.NAME}"] = (b"", 0o644)
    # Open WebUI's image brings models in what a volume is mounted over, and writes to the other.
    files["app/backend/data/cache/embedding/models/all-MiniLM-L6-v2"] = (b"", 0o644)
    files["app/backend/open_webui/static/favicon.png"] = (b"", 0o644)
    # Beat has no volume there, and writes a key of its own.
    return oci.layer_of_files(files, {"app/api/storage": 1001}, into / "program.tar.gz")


def _fill(into: Path, base: Path, store: Path) -> None:
    """Push every image to a registry on this folder, and note their digests."""
    (into / "data").mkdir()
    shared, busybox = _read_layer(base, "base"), _read_layer(base, "busybox")
    digests = {}
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        program = _program(Path(scratch))
        with _running(store, into, Path(scratch)) as registry:
            for name, image in catalogue().items():
                digests[name] = oci.push(registry, name, [shared, program], image.config())
            name = "library/busybox:latest"
            config = {"Env": [f"PATH={PATH}"], "Cmd": ["sh"]}
            digests[name] = oci.push(registry, name, [busybox], config)
    plain = {name.removeprefix("library/"): digest for name, digest in digests.items()}
    (into / RECORD).write_text(json.dumps(plain, indent=2) + "\n")


@contextmanager
def _running(store: Path, data: Path, scratch: Path) -> Iterator[str]:
    """A registry on loopback that takes pushes; it dies with us."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = _configure(scratch, data, address, readonly=False)
    log = scratch / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", _binary(store), "serve", config],
            stdout=out,
            stderr=out,
        )
    try:
        end = time.monotonic() + 20
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > end:
                raise LabError(f"docker-registry does not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def _configure(folder: Path, store: Path, listen: str, *, readonly: bool) -> Path:
    """docker-registry's configuration, which is JSON as well as YAML."""
    config = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(store / "data")},
            "maintenance": {"readonly": {"enabled": readonly}},
        },
        "http": {"addr": listen},
    }
    path = folder / "registry.yml"
    path.write_text(json.dumps(config))
    return path


def _forget(store: Path, kept: set[Path]) -> None:
    """Remove what no ``prepare`` has asked for in a long time."""
    for folder in [*store.glob("images-*"), *store.glob("base-*")]:
        if folder not in kept and time.time() - folder.stat().st_mtime > UNUSED:
            shutil.rmtree(folder)
