"""A signed apt repository of small packages, built with dpkg-deb and gpg."""

import gzip
import hashlib
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A binary package: control fields, files with their modes, and maintainer scripts."""

    name: str
    version: str
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    architecture: str = "amd64"

    @property
    def control(self) -> str:
        """The control file."""
        values = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Maintainer": "llm-fleet lab <root@localhost>",
            **self.fields,
            "Description": f"the lab's stand-in for {self.name}",
        }
        return "".join(f"{key}: {value}\n" for key, value in values.items())


def publish(folder: Path, packages: list[Package], home: Path, label: Mapping[str, str]) -> None:
    """Fill `folder` with a flat repository, signed with the key in the gpg home `home`."""
    folder.mkdir(parents=True)
    entries = [_entry(folder, package) for package in packages]
    index = "\n".join(entries).encode()
    (folder / "Packages").write_bytes(index)
    (folder / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
    sums = "".join(
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
        for name in ("Packages", "Packages.gz")
        for content in [(folder / name).read_bytes()]
    )
    head = "".join(f"{key}: {value}\n" for key, value in label.items())
    release = folder / "Release"
    release.write_text(f"{head}Date: {formatdate(usegmt=True)}\nSHA256:\n{sums}")
    gpg(home, "--clearsign", "--output", folder / "InRelease", release)
    gpg(home, "--armor", "--detach-sign", "--output", folder / "Release.gpg", release)
    key = fingerprint(home)[-8:]
    for name in (f"{key}.pub", f"{key.lower()}.pub"):
        (folder / name).write_bytes(gpg(home, "--armor", "--export"))


def make_key(home: Path, user: str) -> None:
    """Make a signing key in the gpg home `home`."""
    home.chmod(0o700)
    gpg(home, "--passphrase", "", "--quick-gen-key", user, "rsa3072", "sign", "never")


def fingerprint(home: Path) -> str:
    """The key's fingerprint, 40 capital hexadecimal digits."""
    lines = gpg(home, "--with-colons", "--list-keys").decode().splitlines()
    return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))


def gpg(home: Path, *words: str | Path) -> bytes:
    """What gpg prints. Its agent ends with the call: a gpg home is a folder like others."""
    with tempfile.TemporaryDirectory(prefix="lab-gpg-") as short:
        # A socket's path has 107 characters at most, which a cache's may exceed.
        link = Path(short) / "home"
        link.symlink_to(home)
        argv = ["gpg", "--homedir", str(link), "--batch", "--yes", "--quiet", *map(str, words)]
        try:
            done = subprocess.run(argv, capture_output=True, check=False)
        finally:
            subprocess.run(
                ["gpgconf", "--homedir", str(link), "--kill", "all"],
                capture_output=True,
                check=False,
            )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.decode().strip()}")
    return done.stdout


def _entry(folder: Path, package: Package) -> str:
    """Build a package into the folder; its entry in the index."""
    deb = (
        folder / f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb"
    )
    with tempfile.TemporaryDirectory(prefix="lab-deb-") as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        (root / "DEBIAN").mkdir(mode=0o755)
        for path, (text, mode) in {
            **{f"DEBIAN/{name}": (text, 0o755) for name, text in package.scripts.items()},
            "DEBIAN/control": (package.control, 0o644),
            **package.files,
        }.items():
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(mode)
        argv = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(root), str(deb)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    content = deb.read_bytes()
    return (
        f"{package.control}Filename: ./{deb.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
