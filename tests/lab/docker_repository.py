"""Run on a Debian 13 lab host: Docker's own repository for it, at http://127.0.0.1:9000/debian.

It stands for download.docker.com/linux. Kept: the layout (dists, component stable, the key at
debian/gpg), the names, the form of the versions, and that docker-ce and docker.io exclude each
other. The programs in the packages are Debian's own Docker, containerd, runc and Compose, moved to
where Docker CE has them: what runs is real, and only older than what Docker serves.
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
from email.utils import formatdate
from pathlib import Path

ROOT = Path("/srv/docker-repository")
# Package to Debian's packages with its programs. The version is that of the first.
MADE_OF = {
    "docker-ce": ["docker.io"],
    "docker-ce-cli": ["docker-cli"],
    "containerd.io": ["containerd", "runc"],
    "docker-compose-plugin": ["docker-compose"],
}
CONFLICTS = "docker.io, docker-cli, docker-compose, containerd, runc"
DEPENDS = {
    "docker-ce": "containerd.io (>= 1.7), docker-ce-cli, iptables, libc6, libsystemd0, "
    "libdevmapper1.02.1, tini",
    "docker-ce-cli": "libc6",
    "containerd.io": "libc6, libseccomp2",
    "docker-compose-plugin": "libc6",
}


def run(*words, **options):
    return subprocess.run(
        [str(word) for word in words], check=True, capture_output=True, text=True, **options
    ).stdout


def build(name, sources, pool):
    tree = ROOT / "tree" / name
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(exist_ok=True)
    for source in sources:
        [deb] = ROOT.glob(f"debs/{source}_*.deb")
        # The maintainer scripts are those of the first.
        run("dpkg-deb", "-x" if tree.exists() else "-R", deb, tree)
    version = re.search(r"^Version: (.*)$", (tree / "DEBIAN/control").read_text(), re.M)[1]
    upstream = re.match(r"[\d.]+\d", version)[0]
    # Debian's /usr/sbin/dockerd is /usr/bin/dockerd there, and its unit says so.
    for program in tree.glob("usr/sbin/*"):
        (tree / "usr/bin").mkdir(exist_ok=True)
        program.rename(tree / "usr/bin" / program.name)
    for unit in tree.glob("usr/lib/systemd/system/*.service"):
        unit.write_text(unit.read_text().replace("/usr/sbin/dockerd", "/usr/bin/dockerd"))
    for part in ("config", "md5sums", "templates"):
        (tree / "DEBIAN" / part).unlink(missing_ok=True)
    epoch = "5:" if name in ("docker-ce", "docker-ce-cli") else ""
    control = (
        f"Package: {name}\nVersion: {epoch}{upstream}-1~debian.13~trixie\nArchitecture: amd64\n"
        f"Maintainer: Docker <support@docker.com>\nDepends: {DEPENDS[name]}\n"
        f"Conflicts: {CONFLICTS}\nReplaces: {CONFLICTS}\nDescription: the lab's {name}\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    deb = pool / f"{name}_{upstream}-1~debian.13~trixie_amd64.deb"
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, deb)
    content = deb.read_bytes()
    return upstream, (
        f"{control}Filename: {deb.relative_to(ROOT / 'web/debian')}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )


def main():
    run("apt-get", "update")
    run("apt-get", "install", "-y", "--no-install-recommends", "gpg", "gpg-agent")
    (ROOT / "debs").mkdir(parents=True, exist_ok=True)
    run(
        "apt-get",
        "download",
        *(debian for made_of in MADE_OF.values() for debian in made_of),
        cwd=ROOT / "debs",
    )
    pool = ROOT / "web/debian/dists/trixie/pool/stable/amd64"
    index = ROOT / "web/debian/dists/trixie/stable/binary-amd64"
    for folder in (pool, index):
        folder.mkdir(parents=True, exist_ok=True)
    built = {name: build(name, sources, pool) for name, sources in MADE_OF.items()}
    text = "\n".join(entry for _, entry in built.values()).encode()
    suite = index.parent.parent
    lines = []
    for path, content in (("Packages", text), ("Packages.gz", gzip.compress(text))):
        (index / path).write_bytes(content)
        place = (index / path).relative_to(suite)
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {place}\n")
    (suite / "Release").write_text(
        "Origin: Docker\nLabel: Docker CE\nSuite: trixie\nCodename: trixie\nArchitectures: amd64\n"
        f"Components: stable\nDate: {formatdate(usegmt=True)}\nSHA256:\n{''.join(lines)}"
    )
    home = ROOT / "gpg"
    home.mkdir(mode=0o700, exist_ok=True)
    gpg = ["gpg", "--homedir", home, "--batch", "--yes", "--quiet", "--passphrase", ""]
    if not list(home.glob("private-keys-v1.d/*")):
        run(*gpg, "--quick-gen-key", "the lab's Docker <root@localhost>", "rsa3072", "sign")
    run(*gpg, "--clearsign", "--output", suite / "InRelease", suite / "Release")
    (ROOT / "web/debian/gpg").write_text(run(*gpg, "--armor", "--export"))
    subprocess.run(["systemctl", "stop", "docker-repository"], check=False, capture_output=True)
    run(
        *("systemd-run", "--quiet", "--collect", "--unit", "docker-repository", "python3", "-m"),
        *("http.server", "--bind", "127.0.0.1", "--directory", ROOT / "web", "9000"),
    )
    shutil.rmtree(ROOT / "tree")
    listing = run(*gpg, "--with-colons", "--list-keys").splitlines()
    fingerprint = next(line.split(":")[9] for line in listing if line.startswith("fpr:"))
    os.sync()
    print(fingerprint, *(version for version, _ in built.values()))  # noqa: T201


main()
