"""Base images: Debian roots as a cloud provider ships them, built once and shared by all labs.

An image's name carries a hash of its recipe, so a changed recipe or mirror builds a new one.
Hosts use an image as the read-only layer of an overlay and never write to it.
"""

import hashlib
import inspect
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.machine import KEYRING
from lab.state import CACHE, STATE, LabError, lock, read_json, run, say, timed

PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "netcat-openbsd",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
    "zstd",
)
MACHINE_CAS = Path("/usr/local/share/ca-certificates")

# What a cloud image's first boot would have done, and what would only get in the way: timers
# that take apt's lock at an unforeseen moment, and login prompts on consoles that do not exist.
CUSTOMIZE = """set -eu
root=$1
chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD:ALL' > "$root/etc/sudoers.d/ops"
chmod 0440 "$root/etc/sudoers.d/ops"
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/machine-id "$root"/var/lib/dbus/machine-id
chroot "$root" systemctl --quiet enable systemd-networkd.service ssh.service
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer \
    console-getty.service getty.target systemd-firstboot.service
install -d -m 0755 "$root/var/log/journal"
echo LANG=C.UTF-8 > "$root/etc/default/locale"
"""
# The build may have read its keys elsewhere (see _keyring).
OWN_KEYRING = f"""
sed -i 's#^Signed-By: .*#Signed-By: {KEYRING}#' "$root"/etc/apt/sources.list.d/*.sources
"""


@dataclass(frozen=True)
class Mirror:
    """Where Debian's archives are for this machine. `security` is None when not known."""

    main: str
    security: str | None

    def sources(self, release: str) -> str:
        """Return the deb822 sources of a host of this release."""
        parts = [(self.main, f"{release} {release}-updates")]
        if self.security:
            parts.append((self.security, f"{release}-security"))
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n"
            for uri, suites in parts
        )


def mirror() -> Mirror | None:
    """Return the mirror that the machine's own apt uses; None on a machine that is no Debian."""
    found: dict[bool, str] = {}
    lines = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    )
    for line in lines.splitlines():
        uri, _, release = line.partition(" ")
        # Third parties have releases of Debian's names too: the archive's path tells them apart.
        if re.search(r"/debian(-security)?/?$", uri) or uri.startswith("mirror+file:"):
            found.setdefault(release.endswith("-security"), _resolved(uri))
    return Mirror(found[False], found.get(True)) if False in found else None


def _resolved(uri: str) -> str:
    """Return the first mirror of a mirror list, as Debian's own cloud images use them."""
    if not uri.startswith("mirror+file:"):
        return uri
    lines = Path(uri.removeprefix("mirror+file:").rstrip("/")).read_text().splitlines()
    return next(line.split()[0] for line in lines if line.strip() and not line.startswith("#"))


def apt_options() -> str:
    """Return what of the machine's apt configuration a host needs to reach the same mirror."""
    wanted = re.compile(r"Acquire::(https?::|Check-Valid-Until |Check-Date |Retries )", re.I)
    lines = run(["apt-config", "dump"]).splitlines()
    return "\n".join([line for line in lines if wanted.match(line) and '""' not in line]) + "\n"


def ensure(release: str) -> Path:
    """Return the image of a release, built when it is not in the cache.

    Raises LabError when there is no mirror, no key to trust it by, or no space.
    """
    source, options = mirror(), apt_options()
    sources = source.sources(release) if source else ""
    recipe = "\0".join([release, *PACKAGES, CUSTOMIZE, sources, options, inspect.getsource(_build)])
    image = CACHE / f"{release}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if image.is_dir():
        return image
    with lock(f"image-{release}", f"{release}: waiting for another lab that builds this image"):
        if not image.is_dir():
            say(f"{release}: building the base image (once; about half a minute)")
            with timed(f"{release}: base image built"):
                _discard_others(release)
                _build(release, image, sources, options)
    return image


def _build(release: str, image: Path, sources: str, options: str) -> None:
    CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
    if shutil.disk_usage(CACHE).free < 2 << 30:
        raise LabError(f"{CACHE} has less than 2 GB free, which a base image needs: free some.")
    work = CACHE / f".{image.name}.{os.getpid()}"
    work.mkdir()
    try:
        root = work / "root"
        keyring = str(_keyring(release))
        (work / "debian.sources").write_text(sources.replace(str(KEYRING), keyring))
        (work / "options").write_text(options)
        (work / "customize").write_text(
            CUSTOMIZE + (OWN_KEYRING if sources else "") + _certificates(sources)
        )
        (work / "customize").chmod(0o755)
        run(
            [
                # It dies with us, and its mounts with it: a killed build leaves only files,
                # which _discard_others removes.
                *("setpriv", "--pdeathsig", "KILL", "--"),
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
                *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
                *("--format=directory", f"--include={','.join(PACKAGES)}"),
                f"--keyring={keyring}",
                f"--aptopt={work / 'options'}",
                "--setup-hook=cp -a /etc/apt/auth.conf.d /etc/apt/auth.conf $1/etc/apt/ || true",
                f"--customize-hook={work / 'customize'}",
                *(release, root),
                *([work / "debian.sources"] if sources else []),
            ]
        )
        root.rename(image)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _certificates(sources: str) -> str:
    """Return the step that lets hosts trust a mirror behind the machine's own authority."""
    if "https://" not in sources or not list(MACHINE_CAS.glob("**/*.crt")):
        return ""
    return f'cp -a {MACHINE_CAS}/. "$root{MACHINE_CAS}/"\nchroot "$root" update-ca-certificates\n'


def _keyring(release: str) -> Path:
    """Return a keyring that knows the release.

    A machine older than the release may not: then the keys come from the newest image its keys
    do vouch for, where the archive's own package carries those of its successor.
    """
    if (KEYRING.parent / f"debian-archive-{release}-stable.gpg").exists():
        return KEYRING
    if release == "bookworm":
        raise LabError(f"{KEYRING.name} does not know {release}: upgrade debian-archive-keyring.")
    return Path(f"{ensure('bookworm')}{KEYRING}")


def _discard_others(release: str) -> None:
    """Remove killed builds (we hold the lock: no other is running) and images no host uses."""
    used = {read_json(record).get("image") for record in STATE.glob("*/hosts/*/host.json")}
    for old in [*CACHE.glob(f".{release}-*"), *CACHE.glob(f"{release}-*")]:
        if str(old) not in used:
            shutil.rmtree(old, ignore_errors=True)
